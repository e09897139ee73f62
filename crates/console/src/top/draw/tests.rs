use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::*;
use crate::situations::{Situation, all};

const PLAIN: Look = Look { ascii: false, colour: true };

fn drawn(state: &State, view: &View, now: Instant, (width, height): (u16, u16), look: Look) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, view, now, "http://127.0.0.1:8000", "14:38:08 UTC", look)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..buffer.area.height).map(line).collect::<Vec<_>>().join("\n")
}

fn screen(situation: &Situation, view: &View, size: (u16, u16)) -> String {
    let (state, now) = situation.play();
    text(&drawn(&state, view, now, size, PLAIN))
}

#[test]
fn what_flows_is_drawn_whole_on_an_ordinary_screen() {
    let expected = "\
● Current: rows 0.8 s behind  498 events written per second, 501 events incoming. 2 dead letters nee
http://127.0.0.1:8000  14:38:08 UTC
┌ Pipeline: in, out, a second ─────────────────────────────────────────────────────────────────────┐
│● relay      500/s → 500/s    relay relay.test  lag 0.4 s  cursor 6000                            │
│● stream     500/s → 500/s    entries 1,234 of 500,000 (0%)  pending 80  bulk 0                   │
│● workers    500/s → 500/s    alive 2  failed 0.01%  letters 2                                    │
│● tables     500/s            rows 1,239,567  age 0.8 s  postgres healthy                         │
└──────────────────────────────────────────────────────────────────────────────────────────────────┘
┌ Workers: 2 alive of 2 ───────────────────┐┏ Events ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
│● a                 250/s pending 40      │┃12:00:29 create app.bsky.feed.like did:plc:00000000000┃
│● b                 250/s pending 40      │┃12:00:28 create app.bsky.feed.like did:plc:00000000000┃
│                                          │┃12:00:27 create app.bsky.feed.post did:plc:00000000000┃
│                                          │┃12:00:26 create app.bsky.feed.like did:plc:00000000000┃
│                                          │┃12:00:25 create app.bsky.feed.like did:plc:00000000000┃
└──────────────────────────────────────────┘┃12:00:24 create app.bsky.feed.post did:plc:00000000000┃
┌ Tables: rows, growth a second ───────────┐┃12:00:23 create app.bsky.feed.like did:plc:00000000000┃
│users                 0        0/s        │┗━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┛
│posts         1,000,000        0/s        │┌ Dead letters: 2 ─────────────────────────────────────┐
│likes           234,567        0/s        ││commit value too long for type character varying(512) │
│reposts               0        0/s        ││                                                      │
└──────────────────────────────────────────┘└──────────────────────────────────────────────────────┘
/ filter  Tab panel  Enter open  p pause  ? help  q quit";
    let drawn = screen(&Situation::default(), &View::default(), (100, 22));
    assert_eq!(drawn, expected, "\n{drawn}");
}

#[test]
fn every_situation_is_drawn_on_every_size_and_none_is_green_but_the_good_ones() {
    for (name, situation, level, headline) in all() {
        let (state, now) = situation.play();
        for size in [(200, 60), (120, 40), (80, 24), (80, 22), (79, 24), (60, 15), (40, 10)] {
            let buffer = drawn(&state, &View::default(), now, size, PLAIN);
            let shown = text(&buffer);
            let mark = PLAIN.mark(level);
            assert!(
                shown.starts_with(&format!("{mark} {}", headline.chars().take(30).collect::<String>())),
                "{name} {size:?}\n{shown}"
            );
            assert_eq!(buffer[(0, 0)].fg == Color::Green, level == Level::Good, "{name}");
        }
        let wide = text(&drawn(&state, &View::default(), now, (120, 40), PLAIN));
        assert_eq!(wide.contains("ast update"), state.is_stale(now), "{name}\n{wide}");
    }
}

#[test]
fn nothing_breaks_on_any_size() {
    let (state, now) = Situation::default().play();
    for view in [
        View::default(),
        View { help: true, ..View::default() },
        View { opened: true, ..View::default() },
        View { opened: true, panel: Panel::Letters, writing: Some("wörter".repeat(20)), ..View::default() },
    ] {
        for width in (0..=130).step_by(7).chain([1, 39, 40, 79, 80]) {
            for height in (0..=45).step_by(4).chain([1, 9, 10, 21, 22]) {
                drawn(&state, &view, now, (width, height), PLAIN);
            }
        }
    }
    assert!(screen(&Situation::default(), &View::default(), (30, 8)).contains("too small"));
}

#[test]
fn a_narrow_screen_shows_the_chosen_panel() {
    for (panel, part) in [
        (Panel::Events, "app.bsky.feed.like"),
        (Panel::Workers, "2 alive of 2"),
        (Panel::Tables, "reposts"),
        (Panel::Letters, "value too long"),
    ] {
        let shown = screen(&Situation::default(), &View { panel, ..View::default() }, (60, 18));
        assert!(shown.contains(part), "{panel:?}\n{shown}");
        assert_eq!(shown.matches('┏').count(), 1, "{panel:?}\n{shown}");
    }
}

#[test]
fn the_filter_its_matches_help_and_an_opened_letter_are_shown() {
    let filtered = View { filter: "post".into(), ..View::default() };
    let shown = screen(&Situation::default(), &filtered, (120, 40));
    assert!(shown.contains("Events with post: 10 of 30") && !shown.contains("feed.like"), "{shown}");
    let writing = View { writing: Some("li".into()), ..View::default() };
    let shown = screen(&Situation::default(), &writing, (120, 40));
    assert!(shown.contains("\n/li_ ") && shown.contains("20 of 30"), "{shown}");
    let shown = screen(&Situation::default(), &View { help: true, ..View::default() }, (120, 40));
    assert!(shown.contains("hold the events still"), "{shown}");
    let opened = View { opened: true, panel: Panel::Letters, ..View::default() };
    let shown = screen(&Situation::default(), &opened, (120, 40));
    assert!(shown.contains("seq        77") && shown.contains("did        did:plc:a"), "{shown}");
}

#[test]
fn without_colour_and_utf_8_the_marks_still_differ() {
    let ascii = Look { ascii: true, colour: false };
    let mut marks = Vec::new();
    for (name, situation, level, _) in all() {
        let (state, now) = situation.play();
        let buffer = drawn(&state, &View::default(), now, (120, 40), ascii);
        let shown = text(&buffer);
        assert!(shown.is_ascii(), "{name}\n{shown}");
        assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset), "{name}");
        marks.push((level, shown.chars().next()));
    }
    marks.sort();
    marks.dedup();
    assert_eq!(
        marks,
        [(Level::Good, Some('+')), (Level::Unknown, Some('?')), (Level::Degraded, Some('!')), (Level::Down, Some('X'))]
    );
}

#[test]
fn the_environment_says_what_a_terminal_shows() {
    let look = |pairs: &[(&str, &str)]| {
        Look::of(&|name| pairs.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned()))
    };
    type Variable<'v> = (&'v str, &'v str);
    let cases: [(&[Variable<'_>], bool, bool); 6] = [
        (&[], false, true),
        (&[("LANG", "de_DE.UTF-8")], false, true),
        (&[("LANG", "C")], true, true),
        (&[("LC_ALL", "C.utf8"), ("LANG", "C")], false, true),
        (&[("LC_ALL", ""), ("LANG", "POSIX")], true, true),
        (&[("NO_COLOR", "1")], false, false),
    ];
    for (pairs, ascii, colour) in cases {
        assert_eq!(look(pairs), Look { ascii, colour }, "{pairs:?}");
    }
}

#[test]
fn names_from_the_network_neither_move_the_cursor_nor_turn_the_text() {
    let (mut state, now) = Situation::default().play();
    let evil = "a\u{1b}[31mb\u{9b}c\u{202e}d";
    let event = Event {
        did: evil.into(),
        lexicon: evil.into(),
        action: evil.into(),
        timestamp: evil.into(),
        kind: evil.into(),
    };
    state.apply(crate::state::Update::Event(event), now);
    let opened = View { opened: true, ..View::default() };
    for view in [View::default(), opened] {
        let buffer = drawn(&state, &view, now, (160, 40), PLAIN);
        assert!(!buffer.content.iter().any(|cell| cell.symbol().chars().any(crate::format::obeyed)));
        assert!(text(&buffer).contains("a\u{fffd}[31mb\u{fffd}c\u{fffd}d"));
    }
}

#[test]
fn pods_are_told_apart_by_the_end_of_their_names() {
    let names = |names: &[&str]| distinct(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(names(&["bluesky-worker-5d8f-a", "bluesky-worker-5d8f-b"]), ["a", "b"]);
    assert_eq!(names(&["bluesky-worker-x1", "bluesky-worker-x2"]), ["x1", "x2"]);
    assert_eq!(names(&["w-1", "w-2"]), ["w-1", "w-2"]);
    assert_eq!(names(&["alone-in-the-house"]), ["alone-in-the-house"]);
    assert_eq!(names(&["wörk-ä-1", "wörk-ö-1"]), ["ä-1", "ö-1"]);
}
