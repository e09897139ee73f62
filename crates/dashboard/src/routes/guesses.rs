//! How often a client may guess: each wrong token or session counts once, by address, apart from every other limit.
//!
//! Who is signed in is not hurt by others behind the same proxy: a session that was seen before needs no guess. What was shown
//! once and is wrong costs nothing again, so that a browser whose session has ended does not use up what its neighbours have.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many different wrong ones a client may show at once.
const AT_ONCE: u32 = 20;

/// How many clients are told apart; further ones share.
const CLIENTS: usize = 10_000;

/// How many wrong ones, and how many sessions, are remembered.
const REMEMBERED: usize = 4096;

/// A token or a session, as what it is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Credential {
    /// The hash of a token.
    Token([u8; 32]),
    /// The hash of a cookie.
    Session([u8; 32]),
}

/// What came of looking at what a client has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict<T> {
    /// It is this one's.
    Right(T),
    /// It is nobody's; the second is whether this client may not guess again for now.
    Wrong { exhausted: bool },
    /// It was nobody's before.
    WrongAgain,
    /// It was not looked at.
    Refused,
}

/// Counts what each client has guessed.
#[derive(Debug)]
pub(crate) struct Guesses(Mutex<State>);

#[derive(Debug)]
struct State {
    /// After how long a client may show one more.
    one_more: Duration,
    /// For each client when it will have all its guesses again.
    clients: HashMap<IpAddr, Instant>,
    wrong: Recent,
    sessions: Recent,
}

/// The newest of what was added.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<Credential>,
    all: HashSet<Credential>,
}

// === impl Guesses ===

impl Guesses {
    /// Lets each client show one more after this time.
    pub(crate) fn new(one_more: Duration) -> Self {
        let (wrong, sessions) = (Recent::default(), Recent::default());
        Self(Mutex::new(State { one_more, clients: HashMap::new(), wrong, sessions }))
    }

    /// Takes note of a session that is right.
    pub(super) fn know(&self, session: Credential) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sessions.add(session);
    }

    /// Looks at what a client shows, unless it has guessed too often.
    pub(super) fn judge<T>(
        &self,
        client: IpAddr,
        shown: Credential,
        now: Instant,
        compare: impl FnOnce() -> Option<T>,
    ) -> Verdict<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.wrong.all.contains(&shown) {
            return Verdict::WrongAgain;
        }
        if !state.sessions.all.contains(&shown) && state.is_exhausted(client, now) {
            return Verdict::Refused;
        }
        match compare() {
            Some(whose) => {
                if matches!(shown, Credential::Session(_)) {
                    state.sessions.add(shown);
                }
                Verdict::Right(whose)
            }
            None => {
                state.wrong.add(shown);
                Verdict::Wrong { exhausted: state.spend(client, now) }
            }
        }
    }
}

// === impl State ===

impl State {
    fn is_exhausted(&self, client: IpAddr, now: Instant) -> bool {
        let whole = self.clients.get(&self.counted(client)).copied().unwrap_or(now);
        whole.saturating_duration_since(now) + self.one_more > self.one_more * AT_ONCE
    }

    /// Takes one guess from a client; says whether it was its last one.
    fn spend(&mut self, client: IpAddr, now: Instant) -> bool {
        if self.clients.len() >= CLIENTS {
            self.clients.retain(|_, whole| *whole > now);
        }
        let client = self.counted(client);
        let whole = self.clients.entry(client).or_insert(now);
        *whole = (*whole).max(now) + self.one_more;
        self.is_exhausted(client, now)
    }

    fn counted(&self, client: IpAddr) -> IpAddr {
        let is_known = self.clients.len() < CLIENTS || self.clients.contains_key(&client);
        if is_known { client } else { Ipv4Addr::UNSPECIFIED.into() }
    }
}

// === impl Recent ===

impl Recent {
    fn add(&mut self, one: Credential) {
        if !self.all.insert(one) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_MORE: Duration = Duration::from_secs(3);

    fn number(number: u32) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    /// The right token and the right session are number 0.
    fn judge(guesses: &Guesses, client: &str, shown: Credential, now: Instant) -> Verdict<&'static str> {
        let is_right = matches!(shown, Credential::Token(bytes) | Credential::Session(bytes) if bytes == number(0));
        guesses.judge(client.parse().unwrap(), shown, now, || is_right.then_some("admin"))
    }

    #[test]
    fn who_guesses_is_refused_until_he_waits_and_the_right_one_with_him() {
        let (guesses, start) = (Guesses::new(ONE_MORE), Instant::now());
        let token = |client, nth, now| judge(&guesses, client, Credential::Token(number(nth)), now);
        for nth in 1..=AT_ONCE {
            assert_eq!(token("192.0.2.1", nth, start), Verdict::Wrong { exhausted: nth == AT_ONCE });
        }
        // Else the one that is not refused would be the right one.
        assert_eq!(token("192.0.2.1", 0, start), Verdict::Refused);
        assert_eq!(token("192.0.2.1", 1000, start), Verdict::Refused);
        assert_eq!(token("192.0.2.2", 0, start), Verdict::Right("admin"), "another client");
        let later = start + ONE_MORE;
        assert_eq!(token("192.0.2.1", 1000, later), Verdict::Wrong { exhausted: true });
        assert_eq!(token("192.0.2.1", 0, later), Verdict::Refused);
        assert_eq!(token("192.0.2.1", 0, later + ONE_MORE), Verdict::Right("admin"));
    }

    #[test]
    fn the_same_wrong_one_is_one_guess() {
        let (guesses, start) = (Guesses::new(ONE_MORE), Instant::now());
        let shown = Credential::Session(number(7));
        assert_eq!(judge(&guesses, "192.0.2.1", shown, start), Verdict::Wrong { exhausted: false });
        for _ in 0..1000 {
            assert_eq!(judge(&guesses, "192.0.2.1", shown, start), Verdict::WrongAgain);
        }
        assert_eq!(judge(&guesses, "192.0.2.1", Credential::Token(number(0)), start), Verdict::Right("admin"));
    }

    #[test]
    fn who_is_signed_in_is_let_in_whatever_others_behind_the_same_proxy_do() {
        let (guesses, start) = (Guesses::new(ONE_MORE), Instant::now());
        let session = Credential::Session(number(0));
        assert_eq!(judge(&guesses, "192.0.2.1", session, start), Verdict::Right("admin"));
        for nth in 1..100 {
            judge(&guesses, "192.0.2.1", Credential::Token(number(nth)), start);
        }
        assert_eq!(judge(&guesses, "192.0.2.1", Credential::Token(number(0)), start), Verdict::Refused);
        assert_eq!(judge(&guesses, "192.0.2.1", session, start), Verdict::Right("admin"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (guesses, mut now) = (Guesses::new(ONE_MORE), Instant::now());
        for nth in 1..30_000_u32 {
            let client = IpAddr::V4((u32::from(Ipv4Addr::new(10, 0, 0, 0)) + nth).into());
            guesses.judge(client, Credential::Token(number(nth)), now, || None::<()>);
            if nth % 1000 == 0 {
                now += Duration::from_millis(100);
            }
        }
        let state = guesses.0.lock().unwrap();
        // And the one that is shared.
        assert!(state.clients.len() <= CLIENTS + 1, "{}", state.clients.len());
        assert_eq!((state.wrong.all.len(), state.wrong.order.len()), (REMEMBERED, REMEMBERED));
    }
}
