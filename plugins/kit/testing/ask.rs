//! [`ask`]: one question to one server block, in one line of a test.
//!
//! ```ignore
//! ask("whoami", "example.org. A").expect("NOERROR qr rd aa …");
//! ```

use super::question::Question;
use super::scenario::Table;
use super::server::{self, Answered, TestServer};
use super::world::World;
use super::{render, reply};

/// What a block of directives answers to a question.
pub struct Asked {
    question: Question,
    answered: Answered,
}

/// Asks `question` (as conversations write it) of a root server block with these directives; a text with server blocks of its own
/// is taken as it is. Panics with the errors if it does not build: for tests only.
pub fn ask(dnsfile: &str, question: &str) -> Asked {
    ask_in(crate::PLUGINS, dnsfile, question)
}

/// [`ask`] with a table of one's own.
pub fn ask_in(table: Table, dnsfile: &str, question: &str) -> Asked {
    ask_with(table, dnsfile, &[], question)
}

/// [`ask_in`] with scripted upstream replies, each `NAME TYPE` and its lines.
pub fn ask_with(table: Table, dnsfile: &str, upstream: &[(&str, &str)], question: &str) -> Asked {
    let world = World::new();
    for (subject, lines) in upstream {
        match reply::script(subject, lines) {
            Ok(script) => world.upstream.script(script),
            Err(what) => panic!("{subject}: {what}"),
        }
    }
    let question = Question::parse(question).unwrap_or_else(|what| panic!("{question}: {what}"));
    let text = match dnsfile.trim_end().ends_with('}') && dnsfile.contains(" {\n") {
        true => dnsfile.to_owned(),
        false => format!(".:53 {{\n{dnsfile}\n}}\n"),
    };
    let answered = server::run(world.events.clone(), async {
        match TestServer::start(&world, table, &text).await {
            Ok(server) => server.ask(&question).await,
            Err(errors) => panic!("{text}\n{errors}"),
        }
    });
    Asked { question, answered }
}

impl Asked {
    /// The response as text: rcode and flags, then a line per record. `no reply` for silence.
    pub fn text(&self) -> String {
        match &self.answered.bytes {
            Some(bytes) => render::response(&self.question.packet, bytes).text(),
            None => "no reply\n".to_owned(),
        }
    }

    /// Where it came from.
    pub fn source(&self) -> &'static str {
        self.answered.source
    }

    /// Compares with the expected text, whose lines may be indented. Panics if they differ: for tests only.
    #[track_caller]
    pub fn expect(&self, expected: &str) {
        let expected: String = expected
            .trim()
            .lines()
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        let text = self.text();
        assert!(text == expected, "expected\n{expected}\ngot\n{text}");
    }
}
