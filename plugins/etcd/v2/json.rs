//! The JSON of the v2 keys API, read without recursion: a tree may be as deep as its writers like, and neither a stack nor a list of a
//! million other keys may break by it. What comes out is flat: the node that was asked for, and all that is below it.

use serde::Deserialize;

use super::V2Node;

/// Levels of a tree that are read; a domain name has 127 labels at most.
const DEPTH_MAX: usize = 4096;

/// What a reply says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplyJson {
    pub(super) action: String,
    pub(super) node: Option<V2Node>,
    /// Everything below `node`, directories included, parents behind their children.
    pub(super) below: Vec<V2Node>,
    pub(super) previous: Option<V2Node>,
}

/// The body of an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorJson {
    #[serde(rename = "errorCode")]
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) cause: String,
    pub(super) index: u64,
}

/// Reads a reply. The error says where it went wrong, never what was there.
pub(super) fn reply(body: &[u8]) -> Result<ReplyJson, String> {
    let mut text = Text { body, at: 0 };
    read_reply(&mut text)
        .ok_or_else(|| format!("not the JSON of etcd's v2 API (octet {})", text.at))
}

fn read_reply(text: &mut Text<'_>) -> Option<ReplyJson> {
    let mut reply = ReplyJson::default();
    let mut fields = text.open(b'{')?;
    while let Some(field) = text.field(&mut fields)? {
        match &*field {
            "action" => reply.action = text.string()?,
            "node" => {
                let (node, below) = read_tree(text)?;
                reply.node = Some(node);
                reply.below = below;
            }
            "prevNode" => reply.previous = Some(read_tree(text)?.0),
            _ => text.skip()?,
        }
    }
    text.end()?;
    Some(reply)
}

/// A node and everything below it, the deepest first.
fn read_tree(text: &mut Text<'_>) -> Option<(V2Node, Vec<V2Node>)> {
    // Nodes that have been opened, with the state of their fields; those with an open list of children wait under the last one.
    let mut open = vec![(V2Node::default(), text.open(b'{')?)];
    let mut below = Vec::new();
    loop {
        let (node, fields) = open.last_mut()?;
        match text.field(fields)? {
            Some(field) => match &*field {
                "key" => node.key = text.string()?,
                "value" => node.value = text.string()?,
                "dir" => node.dir = text.word()? == "true",
                "modifiedIndex" => node.modified_index = text.word()?.parse().ok()?,
                "createdIndex" => node.created_index = text.word()?.parse().ok()?,
                "ttl" => node.ttl = Some(text.word()?.parse().ok()?),
                "expiration" => node.expiration = text.string()?,
                "nodes" => {
                    let mut children = text.open(b'[')?;
                    if text.element(&mut children)? {
                        if open.len() >= DEPTH_MAX {
                            return None;
                        }
                        open.push((V2Node::default(), text.open(b'{')?));
                    }
                }
                _ => text.skip()?,
            },
            None => {
                let (node, _) = open.pop()?;
                if open.is_empty() {
                    return Some((node, below));
                }
                below.push(node);
                // Behind a child there is another one, or its parent goes on.
                if text.element(&mut List { first: false })? {
                    open.push((V2Node::default(), text.open(b'{')?));
                }
            }
        }
    }
}

/// JSON and how far it has been read. Nothing is taken from what does not fit: all functions return `None` then.
struct Text<'b> {
    body: &'b [u8],
    at: usize,
}

/// Whether the next element of an object or a list is its first.
struct List {
    first: bool,
}

impl Text<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.body.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.body.get(self.at).copied()
    }

    fn take(&mut self, octet: u8) -> Option<()> {
        (self.peek()? == octet).then(|| self.at += 1)
    }

    fn open(&mut self, bracket: u8) -> Option<List> {
        self.take(bracket)?;
        Some(List { first: true })
    }

    /// Whether another element follows; takes the comma, or the bracket that ends the list.
    fn next(&mut self, list: &mut List, end: u8) -> Option<bool> {
        if self.peek()? == end {
            self.at += 1;
            return Some(false);
        }
        if !std::mem::take(&mut list.first) {
            self.take(b',')?;
        }
        Some(true)
    }

    fn element(&mut self, list: &mut List) -> Option<bool> {
        self.next(list, b']')
    }

    /// The next field's name, its colon taken too.
    #[expect(clippy::option_option, reason = "malformed, at its end, or a field")]
    fn field(&mut self, object: &mut List) -> Option<Option<String>> {
        if !self.next(object, b'}')? {
            return Some(None);
        }
        let name = self.string()?;
        self.take(b':')?;
        Some(Some(name))
    }

    fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// A string, or nothing for `null`.
    fn string(&mut self) -> Option<String> {
        if self.peek()? != b'"' {
            return (self.word()? == "null").then(String::new);
        }
        let start = self.at;
        self.skip_string()?;
        serde_json::from_slice(self.body.get(start..self.at)?).ok()
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.body.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<&str> {
        self.peek()?;
        let start = self.at;
        let is_inside = |octet: &u8| octet.is_ascii_alphanumeric() || b"+-.".contains(octet);
        while self.body.get(self.at).is_some_and(is_inside) {
            self.at += 1;
        }
        let word = self.body.get(start..self.at)?;
        (!word.is_empty()).then(|| std::str::from_utf8(word).ok())?
    }

    /// Any value, whatever is in it.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'{' | b'[' => {
                    self.at += 1;
                    depth += 1;
                }
                b'}' | b']' => {
                    self.at += 1;
                    depth = depth.checked_sub(1)?;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => {
                    self.word()?;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_tree_is_read_flat() {
        let body = br#"{"action":"get","node":{"key":"/a","dir":true,"nodes":[
            {"key":"/a/b","value":"1 \"\u00e9","expiration":"2026-11-23T21:53:00Z","ttl":-30,"modifiedIndex":7,"createdIndex":6},
            {"key":"/a/c","dir":true,"nodes":[{"key":"/a/c/d","value":"","modifiedIndex":8,"createdIndex":8}],"new":{"x":[1,"]"]}},
            {"key":"/a/e","dir":true,"nodes":[]}
        ],"modifiedIndex":3,"createdIndex":3}}"#;
        let reply = reply(body).expect("etcd's JSON");
        assert_eq!(reply.action, "get");
        assert_eq!(reply.node.as_ref().map(|node| node.modified_index), Some(3));
        let keys: Vec<&str> = reply.below.iter().map(|node| &*node.key).collect();
        assert_eq!(keys, ["/a/b", "/a/c/d", "/a/c", "/a/e"]);
        assert_eq!(reply.below[0].value, "1 \"é");
        assert_eq!(reply.below[0].ttl, Some(-30));
        assert!(reply.below[2].dir);
    }

    #[test]
    fn a_change_has_what_was_before() {
        let body = br#"{"action":"delete","node":{"key":"/a","modifiedIndex":9,"createdIndex":7},"prevNode":{"key":"/a","value":"x","modifiedIndex":7,"createdIndex":7}}"#;
        let reply = reply(body).expect("etcd's JSON");
        assert_eq!(reply.previous.map(|node| node.value).as_deref(), Some("x"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [
            &b""[..],
            b"{",
            b"{}x",
            b"[]",
            b"{\"node\":1}",
            b"{\"node\":{\"nodes\":[1]}}",
            b"{\"node\":{\"nodes\":[{}",
            b"{\"node\":{\"ttl\":\"x\"}}",
            b"{\"action\":\"\xff\"}",
            b"{\"x\":]}",
            b"{\"action\":\"\\",
        ] {
            assert!(reply(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = "{\"nodes\":[".repeat(1_000_000);
        assert!(reply(format!("{{\"node\":{deep}").as_bytes()).is_err());
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = ("[a-z_.é\"\\\\]{0,8}", any::<String>(), any::<u32>()).prop_map(
            |(key, value, index)| json!({"key": key, "value": value, "modifiedIndex": index, "ttl": 5}),
        );
        leaf.prop_recursive(6, 60, 6, |inner| {
            ("[a-z]{1,8}", prop::collection::vec(inner, 0..6))
                .prop_map(|(key, nodes)| json!({"key": key, "dir": true, "nodes": nodes}))
        })
    }

    fn flat(node: &Value, below: &mut Vec<(String, String)>) {
        for node in node["nodes"].as_array().into_iter().flatten() {
            flat(node, below);
            below.push((
                node["key"].as_str().unwrap_or_default().to_owned(),
                node["value"].as_str().unwrap_or_default().to_owned(),
            ));
        }
    }

    proptest! {
        #[test]
        fn every_tree_is_read_as_it_was_written(node in tree(), pretty: bool) {
            let reply_json = json!({"action": "get", "node": node});
            let text = if pretty {
                serde_json::to_vec_pretty(&reply_json)
            } else {
                serde_json::to_vec(&reply_json)
            };
            let read = reply(&text.expect("JSON")).expect("JSON");
            let mut expected = Vec::new();
            flat(&node, &mut expected);
            let got: Vec<_> = read.below.into_iter().map(|node| (node.key, node.value)).collect();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn nothing_that_comes_breaks_it(body: Vec<u8>, at: prop::sample::Index, octet: u8, node in tree()) {
            let _ = reply(&body);
            let mut text = serde_json::to_vec(&json!({"node": node})).expect("JSON");
            let at = at.index(text.len());
            text[at] = octet;
            let _ = reply(&text);
            let _ = reply(&text[..at]);
        }
    }
}
