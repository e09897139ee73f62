//! `app.bsky.feed` and `app.bsky.bookmark`.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::{Fields, json_text};
use super::misfit::Misfit;
use super::source::{Source, key_cell};
use crate::store::row::{Cell, Derived};
use crate::store::table::{MAX_DID, MAX_URI};

type Shown<'a> = (Vec<Cell<'a>>, Option<Derived<'a>>);

/// What a post's URI gains where it names the quote.
const QUOTE_SUFFIX: usize = "#quote".len();

pub(super) fn post<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Shown<'a>, Misfit> {
    let uri = |path| Cell::Text(fields.fitting(path, MAX_URI).map(Cow::Borrowed));
    let cid = |path| Cell::Text(fields.fitting(path, MAX_DID).map(Cow::Borrowed));
    let text = fields.shown("text", usize::MAX).ok_or(Misfit::Missing("text"))?;
    let cells = vec![
        source.cid()?,
        source.repo(),
        Cell::Text(Some(text)),
        Cell::Json(fields.json("langs")),
        uri("reply.parent.uri"),
        cid("reply.parent.cid"),
        uri("reply.root.uri"),
        cid("reply.root.cid"),
        Cell::Json(fields.json("embed")),
        Cell::Json(fields.json("facets")),
        Cell::Json(Some(fields.json("tags").unwrap_or_else(|| "[]".to_owned()))),
        source.created_at(fields),
    ];
    let derived = Derived {
        cid: Cow::Borrowed(source.cid_text()?),
        post: Cow::Owned(source.uri.to_owned()),
        author: Cow::Borrowed(source.repo),
        created_at: source.created(fields),
        sort_at: source.sorted(fields),
        quote: quote(source, fields),
    };
    Ok((cells, Some(derived)))
}

type Quote<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

fn quote<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Option<Quote<'a>> {
    let (uri, cid) = match fields.value("embed.$type").and_then(Value::as_str) {
        Some("app.bsky.embed.record") => ("embed.record.uri", "embed.record.cid"),
        Some("app.bsky.embed.recordWithMedia") => ("embed.record.record.uri", "embed.record.record.cid"),
        _ => return None,
    };
    let uri = fields.fitting(uri, MAX_URI)?;
    if source.uri.len() + QUOTE_SUFFIX > MAX_URI {
        fields.lose();
        return None;
    }
    Some((Cow::Borrowed(uri), fields.fitting(cid, MAX_DID).map(Cow::Borrowed)))
}

pub(super) fn repost<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Shown<'a>, Misfit> {
    let derived = Derived {
        cid: Cow::Borrowed(source.cid_text()?),
        post: Cow::Borrowed(fields.key("subject.uri", MAX_URI)?),
        author: Cow::Borrowed(source.repo),
        created_at: source.created(fields),
        sort_at: source.sorted(fields),
        quote: None,
    };
    Ok((subject(source, fields)?, Some(derived)))
}

/// A like or a repost.
pub(super) fn subject<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.repo(),
        key_cell(fields.key("subject.uri", MAX_URI)?),
        Cell::Text(fields.fitting("subject.cid", MAX_DID).map(Cow::Borrowed)),
        Cell::Json(fields.json("via")),
        source.created_at(fields),
    ])
}

pub(super) fn bookmark<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![source.repo(), key_cell(fields.key("subject.uri", MAX_URI)?), source.created_at(fields)])
}

/// Without `allow` anybody may answer, which is what the columns' defaults say; with it, whom it names.
pub(super) fn thread_gate<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Vec<Cell<'a>> {
    let rules = fields.value("allow").and_then(Value::as_array);
    let of_type = |name: &str| {
        let name = format!("app.bsky.feed.threadgate#{name}");
        let is = move |rule: &&Value| rule.get("$type").and_then(Value::as_str) == Some(&name);
        rules.into_iter().flatten().filter(is).collect::<Vec<_>>()
    };
    let lists: Vec<_> = of_type("listRule").into_iter().filter_map(|rule| rule.get("list")?.as_str()).collect();
    vec![
        source.repo(),
        Cell::Bool(rules.is_none() || !of_type("mentionRule").is_empty()),
        Cell::Bool(rules.is_none() || !of_type("followingRule").is_empty()),
        Cell::Bool(!lists.is_empty()),
        Cell::Json(Some(json_text(&lists.into()))),
        source.created_at(fields),
    ]
}

pub(super) fn post_gate<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Vec<Cell<'a>> {
    let rules = fields.json("embeddingRules").unwrap_or_else(|| "{}".to_owned());
    vec![Cell::Json(Some(rules)), source.created_at(fields)]
}

pub(super) fn generator<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    let name = fields.shown("displayName", MAX_DID).ok_or(Misfit::Missing("displayName"))?;
    Ok(vec![
        source.cid()?,
        source.repo(),
        key_cell(fields.key("did", MAX_DID)?),
        Cell::Text(Some(name)),
        Cell::Text(fields.shown("description", usize::MAX)),
        Cell::Text(fields.blob("avatar")),
        source.created_at(fields),
    ])
}
