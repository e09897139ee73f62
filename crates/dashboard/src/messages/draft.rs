//! What clients send, checked as FastAPI and pydantic check it, and told in their shape.

use penstock_core::messages::MAX_CONTENT;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A message that may be queued.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "MessageDraft")]
pub(crate) struct Draft {
    /// Who writes, above 0.
    #[schemars(range(min = 1))]
    pub(crate) user_id: i32,
    /// Where, above 0.
    #[schemars(range(min = 1))]
    pub(crate) channel_id: i32,
    /// What, 1 to 2,000 characters without the white space around them.
    #[schemars(length(min = 1, max = 2000))]
    pub(crate) content: String,
}

/// Everything that is wrong with a request.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Faults {
    pub(crate) detail: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Fault {
    /// Where: `body` or `query`, then the field.
    loc: Vec<&'static str>,
    /// What, for a person.
    msg: String,
    /// What, for a program.
    r#type: &'static str,
}

/// The most messages of one simulation, and how many where nothing is said.
const SIMULATED: (i64, i64) = (10_000, 500);

/// The most messages of one list, and how many where nothing is said.
const LISTED: (i64, i64) = (500, 50);

// === impl Draft ===

impl Draft {
    /// Reads the body of `POST /messages`.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Faults> {
        let body = object(body)?;
        let mut detail = Vec::new();
        let mut keep = |result: Result<i64, Fault>| result.map_err(|fault| detail.push(fault)).ok();
        let user_id = keep(integer(&body, "user_id", 1, i32::MAX.into()));
        let channel_id = keep(integer(&body, "channel_id", 1, i32::MAX.into()));
        let content = content(&body).map_err(|fault| detail.push(fault)).ok();
        let ids = (user_id.and_then(|id| i32::try_from(id).ok()), channel_id.and_then(|id| i32::try_from(id).ok()));
        match (ids, content) {
            ((Some(user_id), Some(channel_id)), Some(content)) => Ok(Self { user_id, channel_id, content }),
            _ => Err(Faults { detail }),
        }
    }
}

/// Reads how many messages are to be simulated.
pub(crate) fn count(body: &[u8]) -> Result<usize, Faults> {
    let (most, otherwise) = SIMULATED;
    if body.trim_ascii().is_empty() {
        return Ok(otherwise as usize);
    }
    let body = object(body)?;
    if !body.contains_key("count") {
        return Ok(otherwise as usize);
    }
    integer(&body, "count", 1, most).map(|count| count as usize).map_err(Faults::from)
}

/// Reads how many messages are to be listed.
pub(crate) fn limit(text: Option<&str>) -> Result<i64, Faults> {
    let (most, otherwise) = LISTED;
    let Some(text) = text else { return Ok(otherwise) };
    let value = Value::from(text);
    in_range(&value, "query", "limit", 1, most).map_err(Faults::from)
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Faults> {
    let fault = |msg: String, r#type| Faults::from(Fault { loc: vec!["body"], msg, r#type });
    if body.trim_ascii().is_empty() {
        return Err(fault("Field required".to_owned(), "missing"));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(fault(
            "Input should be a valid dictionary or object to extract fields from".to_owned(),
            "model_attributes_type",
        )),
        Err(error) => Err(fault(format!("JSON decode error: {error}"), "json_invalid")),
    }
}

fn integer(body: &Map<String, Value>, name: &'static str, least: i64, most: i64) -> Result<i64, Fault> {
    in_range(body.get(name).ok_or_else(|| missing(name))?, "body", name, least, most)
}

fn in_range(value: &Value, place: &'static str, name: &'static str, least: i64, most: i64) -> Result<i64, Fault> {
    let fault = |msg: String, r#type| Fault { loc: vec![place, name], msg, r#type };
    let number = match value {
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number,
            (None, Some(number)) if number.fract() != 0.0 => {
                let msg = "Input should be a valid integer, got a number with a fractional part";
                return Err(fault(msg.to_owned(), "int_from_float"));
            }
            // A cast ends at the greatest and the least.
            (None, number) => number.unwrap_or_default() as i64,
        },
        Value::String(text) => text.trim().parse().map_err(|_| {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            fault(msg.to_owned(), "int_parsing")
        })?,
        _ => return Err(fault("Input should be a valid integer".to_owned(), "int_type")),
    };
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
    let text = text.trim();
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

    fn kinds(body: &str) -> Vec<(String, &'static str)> {
        let faults = Draft::read(body.as_bytes()).unwrap_err().detail;
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
            ("-9223372036854775809", "greater_than"),
            ("2147483648", "less_than_equal"),
            ("1e300", "less_than_equal"),
            ("18446744073709551615", "less_than_equal"),
            ("1.5", "int_from_float"),
            ("\"one\"", "int_parsing"),
            ("null", "int_type"),
            ("true", "int_type"),
            ("[1]", "int_type"),
        ] {
            assert_eq!((one("user_id", value), one("channel_id", value)), (kind, kind), "{value}");
        }
        let long = format!("\"{}\"", "é".repeat(2001));
        for (value, kind) in [
            ("\"\"", "string_too_short"),
            ("\" \\t\\n\\u00a0\"", "string_too_short"),
            (long.as_str(), "string_too_long"),
            ("\"a\\u0000b\"", "value_error"),
            ("7", "string_type"),
        ] {
            assert_eq!(one("content", value), kind, "{value}");
        }
    }

    #[test]
    fn what_is_right_is_taken_stripped() {
        let body = format!(r#"{{"user_id":"7","channel_id":2147483647.0,"content":"  {}\n"}}"#, "é".repeat(2000));
        let draft = Draft::read(body.as_bytes()).unwrap();
        assert_eq!((draft.user_id, draft.channel_id), (7, i32::MAX));
        assert_eq!(draft.content, "é".repeat(2000));
    }

    #[test]
    fn counts_and_limits_have_bounds_and_a_default() {
        assert_eq!((count(b"").unwrap(), count(b"{}").unwrap(), count(br#"{"count":7}"#).unwrap()), (500, 500, 7));
        for bad in [&br#"{"count":0}"#[..], br#"{"count":10001}"#, br#"{"count":"x"}"#, b"7"] {
            assert!(count(bad).is_err());
        }
        assert_eq!((limit(None).unwrap(), limit(Some("500")).unwrap()), (50, 500));
        for bad in ["0", "501", "x", ""] {
            let detail = limit(Some(bad)).unwrap_err().detail;
            assert_eq!(detail[0].loc, ["query", "limit"]);
        }
    }
}
