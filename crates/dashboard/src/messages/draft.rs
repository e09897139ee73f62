//! What clients send, checked as FastAPI and pydantic check it, and told in their shape.

use penstock_core::messages::MAX_CONTENT;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::integer;

/// A message to be queued.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "MessageDraft")]
pub(crate) struct Draft {
    /// The author, above 0.
    #[schemars(range(min = 1))]
    pub(crate) user_id: i32,
    /// The channel, above 0.
    #[schemars(range(min = 1))]
    pub(crate) channel_id: i32,
    /// The text, 1 to 2,000 characters without surrounding white space.
    #[schemars(length(min = 1, max = 2000))]
    pub(crate) content: String,
}

/// The body of a request, and whether it is declared as JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'b> {
    pub(crate) as_json: bool,
    pub(crate) body: &'b [u8],
}

/// All validation errors of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Faults {
    pub(crate) detail: Vec<Fault>,
}

/// One validation error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Fault {
    /// Where: `body` or `query`, then the field.
    loc: Vec<&'static str>,
    /// The error as text.
    msg: String,
    /// The error as a code.
    r#type: &'static str,
}

/// The most messages of one simulation, and how many where nothing is said.
const SIMULATED: (i64, i64) = (10_000, 500);

/// The most messages of one list, and how many where nothing is said.
const LISTED: (i64, i64) = (500, 50);

// === impl Draft ===

impl Draft {
    /// Reads the body of `POST /messages`.
    pub(crate) fn read(sent: Sent<'_>) -> Result<Self, Faults> {
        let body = object(sent)?;
        let mut detail = Vec::new();
        let mut keep = |result: Result<i64, Fault>| result.map_err(|fault| detail.push(fault)).ok();
        let user_id = keep(field(&body, "user_id", 1, i32::MAX.into()));
        let channel_id = keep(field(&body, "channel_id", 1, i32::MAX.into()));
        let content = content(&body).map_err(|fault| detail.push(fault)).ok();
        let ids = (user_id.and_then(|id| i32::try_from(id).ok()), channel_id.and_then(|id| i32::try_from(id).ok()));
        match (ids, content) {
            ((Some(user_id), Some(channel_id)), Some(content)) => Ok(Self { user_id, channel_id, content }),
            _ => Err(Faults { detail }),
        }
    }
}

/// Reads how many messages are to be simulated.
pub(crate) fn count(sent: Sent<'_>) -> Result<usize, Faults> {
    let (most, otherwise) = SIMULATED;
    if sent.body.trim_ascii().is_empty() {
        return Ok(otherwise as usize);
    }
    let body = object(sent)?;
    if !body.contains_key("count") {
        return Ok(otherwise as usize);
    }
    field(&body, "count", 1, most).map(|count| count as usize).map_err(Faults::from)
}

/// Reads how many messages are to be listed.
pub(crate) fn limit(text: Option<&str>) -> Result<i64, Faults> {
    let (most, otherwise) = LISTED;
    let Some(text) = text else { return Ok(otherwise) };
    let value = Value::from(text);
    in_range(&value, "query", "limit", 1, most).map_err(Faults::from)
}

fn object(Sent { as_json, body }: Sent<'_>) -> Result<Map<String, Value>, Faults> {
    let fault = |msg: String, r#type| Faults::from(Fault { loc: vec!["body"], msg, r#type });
    let no_object = || {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        fault(msg.to_owned(), "model_attributes_type")
    };
    if body.trim_ascii().is_empty() {
        return Err(fault("Field required".to_owned(), "missing"));
    }
    // FastAPI leaves such a body as it is: bytes, which are no object.
    if !as_json {
        return Err(no_object());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(no_object()),
        Err(error) => Err(fault(format!("JSON decode error: {error}"), "json_invalid")),
    }
}

fn field(body: &Map<String, Value>, name: &'static str, least: i64, most: i64) -> Result<i64, Fault> {
    in_range(body.get(name).ok_or_else(|| missing(name))?, "body", name, least, most)
}

fn in_range(value: &Value, place: &'static str, name: &'static str, least: i64, most: i64) -> Result<i64, Fault> {
    let fault = |msg: String, r#type| Fault { loc: vec![place, name], msg, r#type };
    let number = integer::read(value).map_err(|refusal| fault(refusal.message().to_owned(), refusal.kind()))?;
    if number < least {
        // What pydantic calls `gt=0`.
        return Err(match least {
            1 if name != "count" && name != "limit" => {
                fault("Input should be greater than 0".to_owned(), "greater_than")
            }
            _ => fault(format!("Input should be greater than or equal to {least}"), "greater_than_equal"),
        });
    }
    if number > most {
        return Err(fault(format!("Input should be less than or equal to {most}"), "less_than_equal"));
    }
    Ok(number)
}

fn content(body: &Map<String, Value>) -> Result<String, Fault> {
    let fault = |msg: String, r#type| Fault { loc: vec!["body", "content"], msg, r#type };
    let Some(value) = body.get("content") else { return Err(missing("content")) };
    let Value::String(text) = value else {
        return Err(fault("Input should be a valid string".to_owned(), "string_type"));
    };
    // White space as Python has it: these separators are none in Unicode.
    let text =
        text.trim_matches(|character: char| character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}'));
    match text.chars().count() {
        0 => Err(fault("String should have at least 1 character".to_owned(), "string_too_short")),
        length if length > MAX_CONTENT => {
            Err(fault(format!("String should have at most {MAX_CONTENT} characters"), "string_too_long"))
        }
        // PostgreSQL takes none.
        _ if text.contains('\0') => {
            Err(fault("Value error, content must not hold a null character".to_owned(), "value_error"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn missing(name: &'static str) -> Fault {
    Fault { loc: vec!["body", name], msg: "Field required".to_owned(), r#type: "missing" }
}

// === impl Faults ===

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self { detail: vec![fault] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &str) -> Sent<'_> {
        Sent { as_json: true, body: body.as_bytes() }
    }

    fn kinds(body: &str) -> Vec<(String, &'static str)> {
        let faults = Draft::read(sent(body)).unwrap_err().detail;
        faults.into_iter().map(|fault| (fault.loc.join("."), fault.r#type)).collect()
    }

    #[test]
    fn every_fault_is_told_at_once_and_where() {
        assert_eq!(
            kinds("{}"),
            ["body.user_id", "body.channel_id", "body.content"].map(|loc| (loc.to_owned(), "missing"))
        );
        assert_eq!(kinds(""), [("body".to_owned(), "missing")]);
        assert_eq!(kinds("{"), [("body".to_owned(), "json_invalid")]);
        assert_eq!(kinds("[]"), [("body".to_owned(), "model_attributes_type")]);
        let one = |field: &str, value: &str| {
            let mut body = serde_json::json!({"user_id": 1, "channel_id": 2, "content": "x"});
            body[field] = serde_json::from_str(value).unwrap();
            let kinds = kinds(&body.to_string());
            assert_eq!((kinds.len(), &*kinds[0].0), (1, &*format!("body.{field}")), "{value}");
            kinds[0].1
        };
        for (value, kind) in [
            ("0", "greater_than"),
            ("false", "greater_than"),
            ("2147483648", "less_than_equal"),
            ("18446744073709551615", "less_than_equal"),
            ("1e300", "int_parsing_size"),
            ("1.5", "int_from_float"),
            ("\"one\"", "int_parsing"),
            ("null", "int_type"),
            ("[1]", "int_type"),
        ] {
            assert_eq!((one("user_id", value), one("channel_id", value)), (kind, kind), "{value}");
        }
        let long = format!("\"{}\"", "é".repeat(2001));
        for (value, kind) in [
            ("\"\"", "string_too_short"),
            ("\" \\t\\n\\u00a0\\u001c\"", "string_too_short"),
            (long.as_str(), "string_too_long"),
            ("\"a\\u0000b\"", "value_error"),
            ("7", "string_type"),
        ] {
            assert_eq!(one("content", value), kind, "{value}");
        }
    }

    #[test]
    fn what_is_right_is_taken_stripped() {
        // As long as may be is what is left.
        let (around, content) = (" ".repeat(3000), "é".repeat(2000));
        let body = format!(r#"{{"user_id":true,"channel_id":2147483647.0,"content":"{around}{content}\n\u001f"}}"#);
        let draft = Draft::read(sent(&body)).unwrap();
        assert_eq!((draft.user_id, draft.channel_id, draft.content), (1, i32::MAX, content));
    }

    #[test]
    fn what_is_not_declared_as_json_is_no_object() {
        let body = br#"{"user_id":1,"channel_id":2,"content":"x"}"#;
        let detail = Draft::read(Sent { as_json: false, body }).unwrap_err().detail;
        assert_eq!((detail.len(), detail[0].r#type, &detail[0].loc), (1, "model_attributes_type", &vec!["body"]));
        assert!(count(Sent { as_json: false, body: b"{}" }).is_err());
        assert_eq!(count(Sent { as_json: false, body: b"" }).unwrap(), 500, "there is nothing to declare");
    }

    #[test]
    fn counts_and_limits_have_bounds_and_a_default() {
        assert_eq!(
            ["", "{}", r#"{"count":7}"#, r#"{"count":true}"#].map(|body| count(sent(body)).unwrap()),
            [500, 500, 7, 1]
        );
        for bad in [r#"{"count":0}"#, r#"{"count":10001}"#, r#"{"count":"x"}"#, r#"{"count":null}"#, "7", "null"] {
            assert!(count(sent(bad)).is_err());
        }
        assert_eq!((limit(None).unwrap(), limit(Some("500")).unwrap()), (50, 500));
        for bad in ["0", "501", "x", ""] {
            let detail = limit(Some(bad)).unwrap_err().detail;
            assert_eq!(detail[0].loc, ["query", "limit"]);
        }
    }
}
