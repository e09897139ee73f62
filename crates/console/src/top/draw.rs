//! Puts what is known on the screen. Pure: it draws what it is given.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};

use super::keys::{Panel, View, letters, workers};
use crate::api::{DeadLetter, Event};
use crate::format::{age, count, plain, rate};
use crate::state::{Link, State};
use crate::verdict::{Level, Stage, stages, verdict};

/// The smallest screen that anything is drawn on.
const LEAST: (u16, u16) = (40, 10);

/// From which size on all panels stand beside each other.
const WIDE: (u16, u16) = (80, 22);

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Letters of ASCII only.
    pub(super) ascii: bool,
    pub(super) colour: bool,
}

/// Borders of ASCII.
const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const HELP: [(&str, &str); 10] = [
    ("/", "filter events: words, all of which an event must hold; * stands for anything"),
    ("Esc", "clear the filter, close what is open"),
    ("Tab, Shift-Tab, 1 to 4", "go to the next panel, the one before, that one"),
    ("arrows, j, k, PgUp, PgDn", "go through a panel"),
    ("Home, End", "go to its first and last line"),
    ("Enter", "open the selected line"),
    ("p, space", "hold the events still, let them go on"),
    ("?", "open and close this"),
    ("q, Ctrl-C", "end"),
    ("?/s", "a figure that is not known yet"),
];

// === impl Look ===

impl Look {
    /// Reads it from the environment. Where nothing is said of the encoding, as in most containers, the terminal outside takes UTF-8.
    pub(super) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set);
        let is_utf8 = |locale: String| {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        };
        Self { ascii: !locale.is_none_or(is_utf8), colour: set(&"NO_COLOR").is_none() }
    }

    fn mark(self, level: Level) -> &'static str {
        match (level, self.ascii) {
            (Level::Good, false) => "●",
            (Level::Good, true) => "+",
            (Level::Unknown, _) => "?",
            (Level::Degraded, false) => "▲",
            (Level::Degraded, true) => "!",
            (Level::Down, false) => "■",
            (Level::Down, true) => "X",
        }
    }

    fn style(self, level: Level) -> Style {
        let colour = match level {
            Level::Good => Color::Green,
            Level::Unknown => Color::Cyan,
            Level::Degraded => Color::Yellow,
            Level::Down => Color::Red,
        };
        let style = if self.colour { Style::new().fg(colour) } else { Style::new() };
        style.add_modifier(Modifier::BOLD)
    }

    fn block<'t>(self, title: &str, has_focus: bool) -> Block<'t> {
        let style = if has_focus { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let block = Block::new().borders(Borders::ALL).title(Line::styled(format!(" {title} "), style));
        match (self.ascii, has_focus) {
            (true, _) => block.border_set(ASCII),
            (false, true) => block.border_set(border::THICK),
            (false, false) => block,
        }
    }

    /// Writes arrows and the like in ASCII where it must be.
    fn text(self, text: &str) -> String {
        if self.ascii { text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() } else { text.to_owned() }
    }
}

/// Draws all of it.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    state: &State,
    view: &View,
    now: Instant,
    url: &str,
    clock: &str,
    look: Look,
) {
    let area = frame.area();
    let ((least_width, least_height), (width, height)) = (LEAST, (area.width, area.height));
    if width < least_width || height < least_height {
        let text = format!("{width}x{height} is too small: {least_width}x{least_height} at least. q ends.");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, middle, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(6), Constraint::Min(1), Constraint::Length(1)])
            .areas(area);
    header(frame, head, state, now, url, clock, look);
    pipeline(frame, middle, state, now, look);
    if width >= WIDE.0 && height >= WIDE.1 {
        let [left, right] = Layout::horizontal([Constraint::Percentage(44), Constraint::Fill(1)]).areas(body);
        let [top, bottom] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(8.min(body.height / 2))]).areas(left);
        panel(frame, top, Panel::Workers, state, view, now, look);
        panel(frame, bottom, Panel::Tables, state, view, now, look);
        let [top, bottom] = Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(right);
        panel(frame, top, Panel::Events, state, view, now, look);
        panel(frame, bottom, Panel::Letters, state, view, now, look);
    } else {
        panel(frame, body, view.panel, state, view, now, look);
    }
    footer(frame, foot, view, look);
    if view.help {
        help(frame, area, look);
    } else if view.opened {
        opened(frame, area, state, view, look);
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant, url: &str, clock: &str, look: Look) {
    let said = verdict(state, now);
    let headline = format!("{} {} ", look.mark(said.level), look.text(&said.headline));
    let first = Line::from(vec![
        Span::styled(headline, look.style(said.level)),
        Span::raw(format!(" {}", look.text(&said.why))),
    ]);
    let mut second = format!("{}  {clock}", plain(url));
    match &state.link {
        Link::Lost(_) => second += "  reconnecting",
        Link::Connecting => second += "  connecting",
        Link::Open | Link::Refused(_) => {}
    }
    if let Some(old) = state.age(now).filter(|_| state.is_stale(now)) {
        second += &format!("  as of {} ago", age(old));
    }
    if said.findings.len() > 1 {
        let others: Vec<_> = said.findings.iter().skip(1).map(|finding| finding.headline.as_str()).collect();
        second += &format!("  besides: {}", others.join(", "));
    }
    frame.render_widget(Paragraph::new(vec![first, Line::raw(look.text(&second))]), area);
}

fn pipeline(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant, look: Look) {
    let dim = if state.is_stale(now) { Style::new().add_modifier(Modifier::DIM) } else { Style::new() };
    let lines: Vec<_> = stages(state, now).iter().map(|stage| stage_line(stage, dim, look)).collect();
    let block = look.block("Pipeline: in, out, a second", false);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn stage_line<'t>(stage: &Stage, figures_style: Style, look: Look) -> Line<'t> {
    let [read, written] = &stage.rates;
    let arrow = match (written.is_empty(), look.ascii) {
        (true, _) => " ",
        (false, false) => "→",
        (false, true) => ">",
    };
    let figures: Vec<_> = stage.figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
    Line::from(vec![
        Span::styled(format!("{} ", look.mark(stage.level)), look.style(stage.level)),
        Span::raw(format!("{:<8}", stage.step.word())),
        Span::styled(format!("{read:>8} {arrow} {written:<8} "), figures_style),
        Span::styled(look.text(&figures.join("  ")), figures_style),
    ])
}

fn panel(frame: &mut Frame<'_>, area: Rect, panel: Panel, state: &State, view: &View, now: Instant, look: Look) {
    let (title, lines) = match panel {
        Panel::Events => events(state, view),
        Panel::Workers => worker_lines(state, now, look),
        Panel::Tables => tables(state, now),
        Panel::Letters => letter_lines(state, now),
    };
    let has_focus = view.panel == panel;
    let selected = view.selected(panel, lines.len());
    let rows = area.height.saturating_sub(2) as usize;
    // The selected line stays in sight.
    let first = (selected + 1).saturating_sub(rows);
    let lines = lines.into_iter().enumerate().skip(first).take(rows).map(|(index, line)| {
        let style = match has_focus && index == selected {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        Line::styled(look.text(&line), style)
    });
    let lines: Vec<_> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(look.block(&title, has_focus)), area);
}

fn events(state: &State, view: &View) -> (String, Vec<String>) {
    let shown = view.events(state);
    let filter = view.writing.as_deref().unwrap_or(&view.filter);
    let mut title = Panel::Events.word().to_owned();
    if !filter.is_empty() {
        title +=
            &format!(" with {}: {} of {}", plain(filter), count(shown.len() as u64), count(state.events.len() as u64));
    }
    if view.paused {
        title += " (paused)";
    }
    if state.missed > 0 {
        title += &format!(", {} missed", count(state.missed));
    }
    let line = |event: &&Event| {
        let Event { lexicon, did, action, timestamp, .. } = event;
        format!("{} {} {} {}", plain(timestamp), plain(action), plain(lexicon), plain(did))
    };
    (title, shown.iter().map(line).collect())
}

fn worker_lines(state: &State, now: Instant, look: Look) -> (String, Vec<String>) {
    let workers = workers(state);
    let alive = workers.iter().filter(|worker| worker.alive).count();
    let title = match state.workers.fresh(now) {
        Some(_) => format!("Workers: {alive} alive of {}", workers.len()),
        None => as_of("Workers", state.workers.age(now)),
    };
    let names: Vec<_> = workers.iter().map(|worker| plain(&worker.name)).collect();
    let lines = workers.iter().zip(distinct(&names)).map(|(worker, name)| {
        let mark = look.mark(if worker.alive { Level::Good } else { Level::Unknown });
        let word = if worker.alive { String::new() } else { "  gone".to_owned() };
        format!("{mark} {name:<14} {:>8} pending {}{word}", rate(worker.entries_per_second), count(worker.pending))
    });
    (title, lines.collect())
}

fn tables(state: &State, now: Instant) -> (String, Vec<String>) {
    let Some(metrics) = state.last_figures() else { return ("Tables".to_owned(), Vec::new()) };
    let title = match state.figures(now) {
        Some(_) => "Tables: rows, growth a second".to_owned(),
        None => as_of("Tables", state.age(now)),
    };
    let lines =
        metrics.stats.tables().into_iter().enumerate().map(|(place, (name, rows))| {
            format!("{name:<8} {:>14} {:>10}", count(rows), rate(state.rows_of(place, now)))
        });
    (title, lines.collect())
}

fn letter_lines(state: &State, now: Instant) -> (String, Vec<String>) {
    let held = state.last_figures().map(|metrics| metrics.firehose_status.dead_letter_length);
    let title = match (state.letters.fresh(now), held) {
        (Some(_), Some(held)) => format!("Dead letters: {}", count(held)),
        (Some(letters), None) => format!("Dead letters: {}", letters.items.len()),
        (None, _) => as_of("Dead letters", state.letters.age(now)),
    };
    let line = |letter: &DeadLetter| {
        let error = letter.error.as_deref().unwrap_or("no reason is given");
        format!("{} {} {}", plain(&letter.kind), plain(error), plain(letter.repo.as_deref().unwrap_or_default()))
    };
    (title, letters(state).iter().map(line).collect())
}

fn as_of(name: &str, old: Option<Duration>) -> String {
    match old {
        Some(old) => format!("{name}, as of {} ago", age(old)),
        None => format!("{name}: not known"),
    }
}

fn footer(frame: &mut Frame<'_>, area: Rect, view: &View, look: Look) {
    let text = match &view.writing {
        Some(text) => format!("/{}_   Enter takes it, Esc leaves it as it was", plain(text)),
        None => "/ filter  Tab panel  Enter open  p pause  ? help  q quit".to_owned(),
    };
    frame.render_widget(Paragraph::new(look.text(&text)).style(Style::new().add_modifier(Modifier::REVERSED)), area);
}

fn help(frame: &mut Frame<'_>, area: Rect, look: Look) {
    let lines: Vec<_> = HELP.iter().map(|(keys, what)| Line::raw(format!("{keys:<26} {what}"))).collect();
    popup(frame, area, "Keys", lines, look);
}

fn opened(frame: &mut Frame<'_>, area: Rect, state: &State, view: &View, look: Look) {
    let pairs: Option<Vec<(&str, String)>> = match view.panel {
        Panel::Events => {
            let shown = view.events(state);
            shown.get(view.selected(Panel::Events, shown.len())).map(|event| {
                vec![
                    ("time", event.timestamp.clone()),
                    ("type", event.kind.clone()),
                    ("action", event.action.clone()),
                    ("collection", event.lexicon.clone()),
                    ("did", event.did.clone()),
                ]
            })
        }
        Panel::Letters => {
            let shown = letters(state);
            shown.get(view.selected(Panel::Letters, shown.len())).map(|letter| {
                vec![
                    ("id", letter.id.clone()),
                    ("type", letter.kind.clone()),
                    ("seq", letter.seq.clone()),
                    ("did", letter.repo.clone().unwrap_or_default()),
                    ("error", letter.error.clone().unwrap_or_default()),
                ]
            })
        }
        Panel::Workers => {
            let shown = workers(state);
            shown.get(view.selected(Panel::Workers, shown.len())).map(|worker| {
                vec![
                    ("name", worker.name.clone()),
                    ("alive", if worker.alive { "yes".to_owned() } else { "no".to_owned() }),
                    ("applies", rate(worker.entries_per_second)),
                    ("pending", count(worker.pending)),
                    ("asked", format!("{} ago", crate::format::duration(worker.idle_seconds))),
                ]
            })
        }
        Panel::Tables => None,
    };
    let Some(pairs) = pairs else { return };
    let lines = pairs.into_iter().map(|(name, value)| Line::raw(look.text(&format!("{name:<10} {}", plain(&value)))));
    popup(frame, area, view.panel.word(), lines.collect(), look);
}

fn popup(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, look: Look) {
    let (width, height) = (area.width.saturating_sub(4).min(100), area.height.saturating_sub(2).min(14));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let block = look.block(&format!("{title}: Esc closes"), true);
    frame.render_widget(Paragraph::new(lines).block(block).wrap(Wrap { trim: false }), place);
}

/// Returns names without what all of them begin with: of pods only the end differs.
fn distinct(names: &[String]) -> Vec<String> {
    let Some((first, others)) = names.split_first().filter(|(_, others)| !others.is_empty()) else {
        return names.to_vec();
    };
    let same = |name: &String| first.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count();
    let length = others.iter().map(same).min().unwrap_or_default();
    // Whole parts only.
    match first.get(..first.floor_char_boundary(length)).and_then(|start| start.rfind('-')) {
        Some(cut) if cut >= 4 => names.iter().map(|name| name.get(cut + 1..).unwrap_or(name).to_owned()).collect(),
        _ => names.to_vec(),
    }
}

#[cfg(test)]
mod tests;
