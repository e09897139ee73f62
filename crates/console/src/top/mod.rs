//! The pipeline in a terminal, drawn anew as figures come.
//!
//! `watch` tells what came, `keys` what a person wants to see, `draw` puts both on the screen: the last two without input or output.

mod draw;
mod keys;
mod screen;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::ConsoleError;
use crate::client::Client;
use crate::state::State;
use crate::target::Target;
use draw::{Look, draw};
use keys::{View, press};
use screen::Screen;

/// How often the screen is drawn at most, and at least.
const FRAME: Duration = Duration::from_millis(250);

/// How many updates are taken in at once.
const AT_ONCE: usize = 4_096;

/// Draws a dashboard's pipeline until somebody presses `q`, or `ending` comes.
///
/// # Errors
/// There is no terminal, or it cannot be drawn on. A dashboard that does not answer is no error: the screen says so.
pub async fn top(target: Target, ending: impl Future<Output = ()>) -> Result<(), ConsoleError> {
    follow(Client::direct(target), ending).await
}

pub(crate) async fn follow(client: Client, ending: impl Future<Output = ()>) -> Result<(), ConsoleError> {
    let look = Look::of(&|name| std::env::var(name).ok());
    let mut screen = Screen::open(&|name| std::env::var(name).ok())?;
    let (url, client) = (client.target().to_string(), Arc::new(client));
    let (wanted, words) = watch::channel(String::new());
    let (_tasks, mut updates) = crate::watch::watch(client, words);
    let (mut state, mut view) = (State::default(), View::default());
    let mut inputs = EventStream::new();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ending = pin!(ending);
    let mut came = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = &mut ending => return Ok(()),
            input = inputs.next() => match input {
                Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => {
                    if press(&mut view, key, &state) {
                        return Ok(());
                    }
                }
                // A new size is seen when it is drawn.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ConsoleError::Draw(error)),
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = frames.tick() => {}
            count = updates.recv_many(&mut came, AT_ONCE) => {
                let now = Instant::now();
                came.drain(..).for_each(|update| state.apply(update, now));
                // The next frame shows it.
                if count > 0 {
                    continue;
                }
            }
        }
        wanted.send_if_modified(|words| {
            let differs = *words != view.filter;
            words.clone_from(&view.filter);
            differs
        });
        view.freeze(&state);
        let now = Instant::now();
        let clock = Timestamp::now().strftime("%H:%M:%S UTC").to_string();
        screen.draw(|frame| draw(frame, &state, &view, now, &url, &clock, look))?;
    }
}
