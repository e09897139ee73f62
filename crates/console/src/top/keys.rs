//! What a person wants to see, by the keys that were pressed.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::api::{DeadLetter, Event, Worker};
use crate::filter::Pattern;
use crate::state::State;

/// How far a page is.
const PAGE: usize = 10;

/// How long a filter may be, in characters.
const LONGEST_FILTER: usize = 200;

/// A part of the screen that can be gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Panel {
    #[default]
    Events,
    Workers,
    Tables,
    Letters,
}

/// What a person wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) panel: Panel,
    /// The terms that an event must hold, each of them.
    pub(super) filter: String,
    /// The filter as it is being written.
    pub(super) writing: Option<String>,
    pub(super) help: bool,
    /// What stands at the selected line, whole.
    pub(super) opened: bool,
    pub(super) paused: bool,
    /// The events as they were when it was paused, the newest first.
    pub(super) frozen: Option<Vec<Event>>,
    /// The selected line of each panel.
    pub(super) selected: [usize; 4],
}

// === impl Panel ===

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Events, Self::Workers, Self::Tables, Self::Letters];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Events => "Events",
            Self::Workers => "Workers",
            Self::Tables => "Tables",
            Self::Letters => "Dead letters",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|panel| *panel == self).unwrap_or_default()
    }

    fn next(self, step: usize) -> Self {
        Self::ALL.get((self.place() + step) % Self::ALL.len()).copied().unwrap_or_default()
    }
}

// === impl View ===

impl View {
    /// Returns the line that is selected in a panel of so many.
    pub(super) fn selected(&self, panel: Panel, lines: usize) -> usize {
        self.selected.get(panel.place()).copied().unwrap_or_default().min(lines.saturating_sub(1))
    }

    /// Returns the events that are shown, the newest first.
    pub(super) fn events<'a>(&'a self, state: &'a State) -> Vec<&'a Event> {
        let filter = self.writing.as_deref().unwrap_or(&self.filter);
        let fits = |event: &&Event| holds(filter, event);
        match &self.frozen {
            Some(events) => events.iter().filter(fits).collect(),
            None => state.events.iter().rev().filter(fits).collect(),
        }
    }

    /// Keeps the events still while it is paused.
    pub(super) fn freeze(&mut self, state: &State) {
        match (self.paused, &self.frozen) {
            (true, None) => self.frozen = Some(state.events.iter().rev().cloned().collect()),
            (false, Some(_)) => self.frozen = None,
            _ => {}
        }
    }

    fn lines(&self, state: &State) -> usize {
        match self.panel {
            Panel::Events => self.events(state).len(),
            Panel::Workers => state.workers.last().map_or(0, Vec::len),
            Panel::Tables => 6,
            Panel::Letters => letters(state).len(),
        }
    }

    fn go(&mut self, state: &State, to: impl Fn(usize) -> usize) {
        let lines = self.lines(state);
        let now = self.selected(self.panel, lines);
        if let Some(selected) = self.selected.get_mut(self.panel.place()) {
            *selected = to(now).min(lines.saturating_sub(1));
        }
    }
}

/// Does what a key says; returns whether to end.
pub(super) fn press(view: &mut View, key: KeyEvent, state: &State) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => true,
            KeyCode::Char('u') if view.writing.is_some() => {
                view.writing = Some(String::new());
                false
            }
            _ => false,
        };
    }
    if view.writing.is_some() {
        write(view, key.code);
        return false;
    }
    match key.code {
        KeyCode::Char('q') => return true,
        KeyCode::Esc if view.help || view.opened => (view.help, view.opened) = (false, false),
        KeyCode::Esc => view.filter.clear(),
        KeyCode::Char('?' | 'h') => view.help = !view.help,
        KeyCode::Char('/') => {
            (view.help, view.opened, view.panel) = (false, false, Panel::Events);
            view.writing = Some(view.filter.clone());
        }
        KeyCode::Char('p' | ' ') => view.paused = !view.paused,
        KeyCode::Enter => view.opened = !view.opened,
        KeyCode::Tab | KeyCode::Right => view.panel = view.panel.next(1),
        KeyCode::BackTab | KeyCode::Left => view.panel = view.panel.next(Panel::ALL.len() - 1),
        KeyCode::Down | KeyCode::Char('j') => view.go(state, |line| line.saturating_add(1)),
        KeyCode::Up | KeyCode::Char('k') => view.go(state, |line| line.saturating_sub(1)),
        KeyCode::PageDown => view.go(state, |line| line.saturating_add(PAGE)),
        KeyCode::PageUp => view.go(state, |line| line.saturating_sub(PAGE)),
        KeyCode::Home | KeyCode::Char('g') => view.go(state, |_| 0),
        KeyCode::End | KeyCode::Char('G') => view.go(state, |_| usize::MAX),
        KeyCode::Char(digit @ '1'..='4') => {
            view.panel = Panel::default().next(digit as usize - '1' as usize);
        }
        _ => {}
    }
    false
}

fn write(view: &mut View, code: KeyCode) {
    let Some(mut text) = view.writing.take() else { return };
    match code {
        KeyCode::Enter => view.filter = text.trim().to_owned(),
        // As it was before.
        KeyCode::Esc => {}
        KeyCode::Backspace => {
            text.pop();
            view.writing = Some(text);
        }
        KeyCode::Char(character) if text.chars().count() < LONGEST_FILTER => {
            text.push(character);
            view.writing = Some(text);
        }
        _ => view.writing = Some(text),
    }
}

/// Returns the dead letters, the newest first.
pub(super) fn letters(state: &State) -> &[DeadLetter] {
    state.letters.last().map_or(&[], |letters| &letters.items)
}

/// Returns the workers, those that live first.
pub(super) fn workers(state: &State) -> Vec<&Worker> {
    let mut workers: Vec<_> = state.workers.last().into_iter().flatten().collect();
    workers.sort_by_key(|worker| !worker.alive);
    workers
}

/// Says whether an event holds every term of a filter, whatever the case; a term may have `*` in it.
fn holds(filter: &str, event: &Event) -> bool {
    if filter.trim().is_empty() {
        return true;
    }
    let texts = [&event.lexicon, &event.did, &event.action, &event.kind].map(|text| text.to_lowercase());
    filter.to_lowercase().split_whitespace().all(|term| {
        let pattern = Pattern(format!("*{term}*"));
        texts.iter().any(|text| pattern.fits(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::situations::Situation;

    fn pressed(view: &mut View, state: &State, keys: &str) -> bool {
        keys.chars().any(|character| {
            let code = match character {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                '↓' => KeyCode::Down,
                '↑' => KeyCode::Up,
                '→' => KeyCode::Right,
                '←' => KeyCode::Left,
                other => KeyCode::Char(other),
            };
            press(view, KeyEvent::new(code, KeyModifiers::NONE), state)
        })
    }

    #[test]
    fn q_and_control_c_end_it_but_not_while_a_filter_is_written() {
        let (state, _) = Situation::default().play();
        assert!(pressed(&mut View::default(), &state, "q"));
        let mut view = View::default();
        assert!(!pressed(&mut view, &state, "/q?p"));
        assert_eq!((view.writing.as_deref(), view.help, view.paused), (Some("q?p"), false, false));
        assert!(press(&mut view, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &state));
    }

    #[test]
    fn a_filter_is_written_taken_over_left_and_cleared() {
        let (state, _) = Situation::default().play();
        let mut view = View::default();
        let all = view.events(&state).len();
        pressed(&mut view, &state, "/posx\u{8}t");
        assert_eq!(view.events(&state).len(), 10, "it works while it is written");
        pressed(&mut view, &state, "\n");
        assert_eq!((view.filter.as_str(), view.events(&state).len()), ("post", 10));
        pressed(&mut view, &state, "/ LIKE\u{1b}");
        assert_eq!(view.filter, "post", "it was left as it was");
        pressed(&mut view, &state, "\u{1b}");
        assert_eq!((view.filter.as_str(), view.events(&state).len()), ("", all));
    }

    #[test]
    fn every_term_must_be_held_whatever_the_case() {
        let event = Event {
            kind: "#commit".into(),
            lexicon: "app.bsky.feed.post".into(),
            did: "did:plc:abc".into(),
            action: "create".into(),
            ..Event::default()
        };
        let cases = [
            ("", true),
            ("  ", true),
            ("FEED", true),
            ("feed create", true),
            ("feed delete", false),
            ("plc*c", true),
            ("feed*like", false),
            ("did:web", false),
        ];
        for (filter, expected) in cases {
            assert_eq!(holds(filter, &event), expected, "{filter:?}");
        }
    }

    #[test]
    fn panels_go_round_and_lines_stay_within() {
        let (state, _) = Situation::default().play();
        let mut view = View::default();
        let seen: Vec<_> = (0..5)
            .map(|_| {
                pressed(&mut view, &state, "\t");
                view.panel
            })
            .collect();
        assert_eq!(seen, [Panel::Workers, Panel::Tables, Panel::Letters, Panel::Events, Panel::Workers]);
        pressed(&mut view, &state, "←");
        assert_eq!(view.panel, Panel::Events);
        pressed(&mut view, &state, "↑↑↓↓↓");
        assert_eq!(view.selected(Panel::Events, 30), 3);
        pressed(&mut view, &state, "G↓");
        assert_eq!(view.selected(Panel::Events, 30), 29);
        assert_eq!(view.selected(Panel::Events, 0), 0);
        pressed(&mut view, &state, "g2↓↓↓");
        assert_eq!((view.panel, view.selected(Panel::Workers, 2)), (Panel::Workers, 1));
    }

    #[test]
    fn what_is_paused_stays() {
        let (mut state, now) = Situation::default().play();
        let mut view = View::default();
        pressed(&mut view, &state, "p");
        view.freeze(&state);
        let before = view.events(&state).len();
        state.apply(crate::state::Update::Event(Event::default()), now);
        view.freeze(&state);
        assert_eq!(view.events(&state).len(), before);
        pressed(&mut view, &state, "p");
        view.freeze(&state);
        assert_eq!(view.events(&state).len(), before + 1);
    }
}
