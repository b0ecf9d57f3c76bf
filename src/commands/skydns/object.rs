//! The object in etcd at `/PREFIX/config`: JSON, read over what flags and variables say.
//!
//! SkyDNS ignored what it did not know, and took wrong values until they failed. Here every field is checked: one that is not known is named
//! and the rest counts, one whose value cannot be used makes the whole object unusable, and both come with line and column.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use skein_plugins::kit::errors::nearest;

use super::settings::{FIELDS, Field, Kind, Settings};

/// Octets of the object at most: etcd would take more, nobody writes it.
const OCTETS_MAX: usize = 64 << 10;

/// What the object amounts to.
#[derive(Debug)]
pub(super) struct Read {
    /// Everything merged.
    pub(super) settings: Settings,
    /// What the operator should know, each with its place.
    pub(super) remarks: Vec<String>,
}

/// Reads an object over `base`; or everything that is wrong with it. `key` is what errors call it.
pub(super) fn read(key: &str, octets: &[u8], base: &Settings) -> Result<Read, Vec<String>> {
    if octets.len() > OCTETS_MAX {
        return Err(vec![format!(
            "{key}: {} octets; at most {OCTETS_MAX} are read",
            octets.len()
        )]);
    }
    let text = std::str::from_utf8(octets).map_err(|error| {
        vec![format!(
            "{key}: it is not UTF-8 from octet {} on",
            error.valid_up_to()
        )]
    })?;
    let members: Members<'_> = serde_json::from_str(text).map_err(|error| {
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        vec![format!(
            "{key}:{}:{}: failed to unmarshal config: {what}; write an object like {{\"dns_addr\":\"127.0.0.1:53\"}}",
            error.line(),
            // What is found before anything has been read has column 0.
            error.column().max(1)
        )]
    })?;
    let mut reader = Reader {
        key,
        text,
        settings: base.clone(),
        errors: Vec::new(),
        remarks: Vec::new(),
    };
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &members.0 {
        if let Some(id) = reader.member(name, value) {
            if seen.contains(&id) {
                let place = reader.place(value.get());
                let what = format!("{place}: {name}: stands here twice; the last one counts");
                reader.remarks.push(what);
            }
            seen.push(id);
        }
    }
    match reader.errors.is_empty() {
        true => Ok(Read {
            settings: reader.settings,
            remarks: reader.remarks,
        }),
        false => Err(reader.errors),
    }
}

/// The members of an object, in order, repeated names included.
struct Members<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Borrowed(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A name, borrowed from the text where it has no escapes.
#[derive(Deserialize)]
struct Borrowed<'t>(#[serde(borrow)] Cow<'t, str>);

struct Reader<'t> {
    key: &'t str,
    text: &'t str,
    settings: Settings,
    errors: Vec<String>,
    remarks: Vec<String>,
}

impl Reader<'_> {
    /// `KEY:LINE:COLUMN` of something that was borrowed from the text.
    fn place(&self, part: &str) -> String {
        let at = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default();
        format!("{}:{line}:{}", self.key, column.chars().count() + 1)
    }

    /// Reads a member; what its field is called, if there is one.
    fn member(&mut self, name: &str, value: &RawValue) -> Option<&'static str> {
        // A name with escapes is a copy, and has no place in the text.
        let is_borrowed = self.text.as_bytes().as_ptr_range().contains(&name.as_ptr());
        let place = self.place(if is_borrowed { name } else { value.get() });
        let Some(field) = FIELDS.iter().find(|field| field.is_named(name)) else {
            self.remarks.push(format!("{place}: {}", unknown(name)));
            return None;
        };
        let id = field.json.or(field.flag)?;
        if id == "etcd3" {
            let what = "which API is used is decided before this object can be read; start with -etcd3 instead";
            self.remarks.push(format!("{place}: {name}: {what}"));
            return Some(id);
        }
        let place = self.place(value.get());
        match text_of(field, value) {
            Ok(None) => {}
            Ok(Some(text)) => {
                if let Err(what) = (field.set)(&mut self.settings, &text) {
                    self.errors.push(format!("{place}: {name}: {what}"));
                }
            }
            Err(what) => self.errors.push(format!("{place}: {name}: {what}")),
        }
        Some(id)
    }
}

fn unknown(name: &str) -> String {
    if let Some(field) = FIELDS.iter().find(|field| {
        field
            .flag
            .or(field.variable)
            .is_some_and(|known| known.eq_ignore_ascii_case(name))
    }) {
        let instead = match (field.flag, field.variable) {
            (Some(flag), _) => format!("the flag -{flag}"),
            (None, variable) => format!("the variable {}", variable.unwrap_or_default()),
        };
        return format!("{name}: is not read from here, and has no effect; use {instead}");
    }
    let names = FIELDS.iter().filter_map(|field| field.json);
    match nearest(&name.to_lowercase().replace('-', "_"), names) {
        Some(near) => {
            format!("{name}: there is no such field, so it has no effect; did you mean {near}?")
        }
        None => format!("{name}: there is no such field, so it has no effect; remove it"),
    }
}

/// A member's value as the text that a flag would have; none where it leaves the field as it is.
fn text_of(field: &Field, value: &RawValue) -> Result<Option<String>, String> {
    let value: Value = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
    let found = match &value {
        // As Go has it: null leaves a field alone, but empties a list.
        Value::Null if field.kind == Kind::List => return Ok(Some(String::new())),
        Value::Null => return Ok(None),
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    let wrong = |wanted: &str, example: &str| {
        Err(format!(
            "is {found}, but has to be {wanted}; write {example}"
        ))
    };
    match (field.kind, value) {
        (_, Value::String(text)) if text.contains('\0') => Err("it has a NUL in it".into()),
        (Kind::Bool, Value::Bool(value)) => Ok(Some(value.to_string())),
        (Kind::Bool, Value::String(text)) => Ok(Some(text)),
        (Kind::Bool, _) => wrong("true or false", "true"),
        (Kind::Number, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(Some(number.to_string()))
        }
        (Kind::Number, Value::Number(number)) => {
            Err(format!("{number} is no whole number; write one like 60"))
        }
        (Kind::Number, Value::String(text)) => Ok(Some(text)),
        (Kind::Number, _) => wrong("a number", "one like 60"),
        (Kind::Duration, Value::Number(number)) => match number.as_u64() {
            Some(nanoseconds @ (0 | 1_000_000..)) => Ok(Some(format!("{nanoseconds}ns"))),
            _ => Err(format!(
                "{number} counts nanoseconds; write 2000000000 or \"2s\" for two seconds"
            )),
        },
        (Kind::Duration, Value::String(text)) => Ok(Some(text)),
        (Kind::Duration, _) => wrong("a number of nanoseconds", "2000000000"),
        (Kind::Text, Value::String(text)) => Ok(Some(text)),
        (Kind::Text, _) => wrong("a text", "it in quotes"),
        (Kind::List, Value::String(text)) => Ok(Some(text)),
        (Kind::List, Value::Array(items)) => {
            let texts = items.iter().map(|item| match item {
                Value::String(text) if !text.contains(',') => Ok(text.as_str()),
                other => Err(format!("{other} is no text; write [\"8.8.8.8:53\"]")),
            });
            let texts: Vec<&str> = texts.collect::<Result<_, _>>()?;
            Ok(Some(texts.join(",")))
        }
        (Kind::List, _) => wrong("an array of texts", "[\"8.8.8.8:53\"]"),
    }
}
