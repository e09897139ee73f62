//! The terminal: taken over at the start, given back however it ends.

use std::io::{self, IsTerminal, Stdout, Write as _, stdin, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

use crate::ConsoleError;

/// Whether the terminal is ours, and must be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

static HOOK: Once = Once::new();

/// The terminal, given back when dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

// === impl Screen ===

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConsoleError> {
        fit(variable("TERM").as_deref(), stdin().is_terminal() && stdout().is_terminal())?;
        // A message of a panic on a screen that is not ours any more is read.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        TAKEN.store(true, Ordering::SeqCst);
        // From here on dropping it gives the terminal back.
        let opened = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide));
        let terminal = opened.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(ConsoleError::Draw(error))
            }
        }
    }

    /// Draws one frame, in the size that the terminal has now.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), ConsoleError> {
        self.terminal.draw(draw).map(drop).map_err(ConsoleError::Draw)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was, once.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone wants nothing.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Says whether there is a terminal that can be drawn on.
fn fit(term: Option<&str>, is_terminal: bool) -> Result<(), ConsoleError> {
    let refused = |why: String| Err(ConsoleError::Terminal { why });
    match term.unwrap_or_default() {
        _ if !is_terminal => refused("there is no terminal: in a pod, use kubectl exec -it".to_owned()),
        "" => refused("TERM is not set: set it to the terminal's kind, such as TERM=xterm".to_owned()),
        "dumb" | "unknown" => {
            refused("this terminal cannot be drawn on (TERM=dumb): set TERM to its kind, such as TERM=xterm".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_drawn_on_is_refused_with_what_to_do() {
        for term in ["xterm", "xterm-256color", "screen", "linux", "vt100"] {
            assert!(fit(Some(term), true).is_ok(), "{term}");
        }
        for (term, is_terminal, part) in
            [(Some("xterm"), false, "kubectl exec -it"), (None, true, "TERM=xterm"), (Some("dumb"), true, "TERM=dumb")]
        {
            let refused = fit(term, is_terminal).unwrap_err();
            assert!(refused.is_usage() && refused.to_string().contains(part), "{refused}");
            assert!(refused.to_string().contains("penstock status"), "{refused}");
        }
    }
}
