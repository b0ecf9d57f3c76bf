//! [`Service`]: a key's value, read from its description (docs in `plugins/etcd/README.md`) and not with the server's code, so that a fault
//! there shows.

use std::net::IpAddr;

use serde_json::Value;
use skein_plugins::kit::wire::Name;

/// Octets of a value that the server reads.
const VALUE_OCTETS_MAX: usize = 128 << 10;

/// A key's value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) host: Host,
    pub(crate) port: i64,
    pub(crate) priority: i64,
    pub(crate) weight: i64,
    pub(crate) text: String,
    pub(crate) mail: bool,
    pub(crate) ttl: u32,
    pub(crate) targetstrip: i64,
    pub(crate) group: String,
}

/// Where a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Host {
    #[default]
    None,
    Address(IpAddr),
    /// Wire form, spelled as written.
    Name(Box<[u8]>),
}

impl Service {
    /// Reads a value; the error says what is wrong with it and what to write instead.
    pub(crate) fn read(value: &[u8]) -> Result<Service, String> {
        if value.len() > VALUE_OCTETS_MAX {
            return Err(format!(
                "{} octets are more than the {VALUE_OCTETS_MAX} that are read; write a smaller value",
                value.len()
            ));
        }
        if value.is_empty() {
            return Err("it is empty; write a JSON object like {\"host\":\"192.0.2.1\"}".into());
        }
        let text = String::from_utf8_lossy(value);
        let json: Value = serde_json::from_str(&text).map_err(|error| {
            format!("it is no JSON ({error}); write a JSON object like {{\"host\":\"192.0.2.1\"}}")
        })?;
        let object = match json {
            Value::Null => return Ok(Service::default()),
            Value::Object(object) => object,
            _ => {
                return Err(
                    "it is JSON but no object; write one like {\"host\":\"192.0.2.1\"}".into(),
                );
            }
        };
        let mut service = Service::default();
        for (field, value) in &object {
            if !value.is_null() {
                service.set(&field.to_ascii_lowercase(), value)?;
            }
        }
        Ok(service)
    }

    fn set(&mut self, field: &str, value: &Value) -> Result<(), String> {
        let text = || {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| format!("`{field}` is no text; write it in quotes"))
        };
        let number = || {
            let number = value.as_i64();
            number
                .ok_or_else(|| format!("`{field}` is no whole number; write digits without quotes"))
        };
        match field {
            "host" => self.host = host(&text()?)?,
            "port" => self.port = number()?,
            "priority" => self.priority = number()?,
            "weight" => self.weight = number()?,
            "text" => self.text = text()?,
            "mail" => {
                let said = value.as_bool();
                self.mail = said.ok_or("`mail` is neither true nor false; write one of them")?;
            }
            "ttl" => {
                let seconds = u32::try_from(number()?);
                self.ttl = seconds.map_err(|_| "`ttl` is out of range; write seconds from 0 on")?;
            }
            "targetstrip" => self.targetstrip = number()?,
            "group" => self.group = text()?,
            _ => {}
        }
        Ok(())
    }
}

fn host(text: &str) -> Result<Host, String> {
    if text.is_empty() {
        return Ok(Host::None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address.to_canonical()));
    }
    match Name::parse(text) {
        Ok(name) => Ok(Host::Name(name.as_wire().into())),
        Err(error) => Err(format!(
            "`host` is neither an address nor a name ({error}); write 192.0.2.1 or name.example.org"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_the_servers_read_it() {
        let service = Service::read(
            br#"{"HOST":"::ffff:192.0.2.1","port":70000,"ttl":60,"x-owner":{"a":1},"text":null}"#,
        );
        let service = service.expect("it is right");
        assert_eq!(
            service.host,
            Host::Address("192.0.2.1".parse().expect("one"))
        );
        assert_eq!((service.port, service.ttl), (70_000, 60));
        assert_eq!(Service::read(b"null"), Ok(Service::default()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, part) in [
            ("", "empty"),
            ("{", "no JSON"),
            ("[]", "no object"),
            (r#"{"ttl":"60"}"#, "`ttl`"),
            (r#"{"ttl":-1}"#, "`ttl`"),
            (r#"{"port":1.5}"#, "`port`"),
            (r#"{"mail":1}"#, "`mail`"),
            (r#"{"host":"a..b"}"#, "`host`"),
            (r#"{"host":1}"#, "`host`"),
        ] {
            let what = Service::read(bad.as_bytes()).expect_err(bad);
            assert!(what.contains(part), "{bad}: {what}");
        }
    }
}
