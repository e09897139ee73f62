//! Finds the log lines in the sources of all crates, tests left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The macros that write a line, and their levels.
const MACROS: &[&str] = &["trace", "debug", "info", "warn", "error"];

/// One call of a log macro.
#[derive(Debug)]
pub(crate) struct LogLine {
    /// `crates/…/file.rs:line`.
    pub(crate) place: String,
    /// The macro's name.
    pub(crate) level: String,
    /// The text, as it is logged; none where there is no literal.
    pub(crate) message: Option<String>,
    /// Whether values are formatted into the text.
    pub(crate) is_formatted: bool,
    pub(crate) fields: Vec<Field>,
}

/// One field of a line.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// `%`, `?` or none.
    pub(crate) sigil: Option<char>,
    /// What is written, as tokens; the name itself where the field is written short.
    pub(crate) value: String,
}

/// Returns the folder with all crates.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Returns every log line of every crate that is no test.
pub(crate) fn log_lines() -> Vec<LogLine> {
    let mut lines = Vec::new();
    for folder in fs::read_dir(workspace().join("crates")).unwrap() {
        let source = folder.unwrap().path().join("src");
        let mut files = Vec::new();
        for entry in ["lib.rs", "main.rs"] {
            let file = source.join(entry);
            if file.exists() {
                follow(&file, &mut files);
            }
        }
        for (file, tokens) in files {
            let name = file.strip_prefix(workspace()).unwrap().display().to_string();
            scan(&name, &tokens, &mut lines);
        }
    }
    lines.sort_by(|a, b| a.place.cmp(&b.place));
    lines
}

/// Returns the log lines of one piece of source.
pub(crate) fn lines_of(source: &str) -> Vec<LogLine> {
    let mut lines = Vec::new();
    scan("source", &without_tests(TokenStream::from_str(source).unwrap()), &mut lines);
    lines
}

/// Reads a file and the modules that it declares, but for those of tests.
fn follow(file: &Path, files: &mut Vec<(PathBuf, Vec<TokenTree>)>) {
    let text = fs::read_to_string(file).unwrap();
    let tokens = TokenStream::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tokens = without_tests(tokens);
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let folder = file.parent().unwrap();
    let folder = if matches!(stem, "lib" | "main" | "mod") { folder.to_owned() } else { folder.join(stem) };
    for module in modules(&tokens) {
        let candidates = [folder.join(format!("{module}.rs")), folder.join(&module).join("mod.rs")];
        let found = candidates.iter().find(|path| path.exists());
        let found = found.unwrap_or_else(|| panic!("{}: where is module {module}?", file.display()));
        follow(found, files);
    }
    files.push((file.to_owned(), tokens));
}

/// Returns the modules that stand in files of their own.
fn modules(tokens: &[TokenTree]) -> BTreeSet<String> {
    let is_module = |three: &&[TokenTree]| is_ident(&three[0], "mod") && is_punct(&three[2], ';');
    tokens.windows(3).filter(is_module).map(|three| three[1].to_string()).collect()
}

/// Leaves out the items behind `#[cfg(test)]` and `#[test]`.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut left = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_attribute = is_punct(&token, '#') && matches!(tokens.peek(), Some(TokenTree::Group(_)));
        if !is_attribute {
            left.push(token);
            continue;
        }
        let attribute = tokens.next().unwrap().to_string().replace(' ', "");
        if matches!(attribute.as_str(), "[cfg(test)]" | "[test]") {
            for token in tokens.by_ref() {
                let is_body = matches!(&token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
                if is_body || is_punct(&token, ';') {
                    break;
                }
            }
        }
    }
    left
}

/// Finds log macros at any depth, within other macros too.
fn scan(file: &str, tokens: &[TokenTree], lines: &mut Vec<LogLine>) {
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let name = match index.checked_sub(2).map(|start| &tokens[start..index]) {
            Some([TokenTree::Ident(name), bang]) if is_punct(bang, '!') => name.to_string(),
            _ => String::new(),
        };
        if MACROS.contains(&name.as_str()) {
            let line = tokens[index - 2].span().start().line;
            lines.push(read(format!("{file}:{line}"), name, group.stream()));
        } else {
            scan(file, &without_tests(group.stream()), lines);
        }
    }
}

/// Reads the arguments of a log macro.
fn read(place: String, level: String, arguments: TokenStream) -> LogLine {
    let mut line = LogLine { place, level, message: None, is_formatted: false, fields: Vec::new() };
    for argument in split(arguments) {
        let text = |tokens: &[TokenTree]| tokens.iter().cloned().collect::<TokenStream>().to_string();
        match argument.as_slice() {
            [] => {}
            _ if line.message.is_some() => line.is_formatted = true,
            [TokenTree::Ident(_), colon, ..] if is_punct(colon, ':') => {}
            [TokenTree::Literal(literal)] => {
                let message = unquoted(&literal.to_string());
                line.is_formatted = message.contains(['{', '}']);
                line.message = Some(message);
            }
            [sigil, name @ ..] if is_punct(sigil, '%') || is_punct(sigil, '?') => {
                let sigil = sigil.to_string().chars().next();
                let value = text(name);
                let name = value.rsplit(['.', ' ']).next().unwrap_or_default().to_owned();
                line.fields.push(Field { name, sigil, value });
            }
            tokens => {
                let equals = tokens.iter().position(|token| is_punct(token, '='));
                let (name, value) = equals.map_or((tokens, tokens), |at| (&tokens[..at], &tokens[at + 1..]));
                let sigil = value.first().filter(|first| is_punct(first, '%') || is_punct(first, '?'));
                let value = if sigil.is_some() { &value[1..] } else { value };
                let sigil = sigil.and_then(|sigil| sigil.to_string().chars().next());
                let name = text(name).replace(' ', "");
                line.fields.push(Field { name, sigil, value: text(value) });
            }
        }
    }
    line
}

/// Splits arguments at their commas.
fn split(arguments: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut parts = vec![Vec::new()];
    for token in arguments {
        match is_punct(&token, ',') {
            true => parts.push(Vec::new()),
            false => parts.last_mut().unwrap().push(token),
        }
    }
    parts
}

fn unquoted(literal: &str) -> String {
    let inner = literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let inner = inner.unwrap_or_else(|| panic!("{literal}: a log line's text is a plain string"));
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_ident(token: &TokenTree, wanted: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == wanted)
}
