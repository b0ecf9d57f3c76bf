//! What builds, what it becomes, and what is said about what does not.

use crate::kit::dnsfile::{self, Rejected, System};
use crate::kit::errors::SetupError;
use crate::kit::setup::Kept;
use crate::kit::testing::world::World;

use super::{Program, build, examine, start_line};

fn program(text: &str) -> Result<Program, String> {
    let said = |rejected: Rejected| -> String {
        let first_line = |error: &SetupError| {
            let shown = crate::kit::errors::render(error, &rejected.sources, false);
            let line = shown.lines().next().unwrap_or_default().to_owned();
            line.trim_start_matches("Dnsfile:").to_owned() + "\n"
        };
        rejected.errors.iter().map(first_line).collect()
    };
    let services = World::new().services(Kept::default(), true);
    let dnsfile = dnsfile::parse("Dnsfile", text, &System)
        .map_err(|rejected| said(examine(rejected, crate::PLUGINS, &services)))?;
    build(&dnsfile, crate::PLUGINS, &services).map_err(|errors| {
        said(Rejected {
            sources: dnsfile.sources.clone(),
            errors,
            ..Rejected::default()
        })
    })
}

/// Listeners, what they serve and the chains; then the warnings. Or the errors.
fn built(text: &str) -> String {
    let program = match program(text) {
        Ok(program) => program,
        Err(errors) => return errors,
    };
    let mut shown = String::new();
    for (zone, id) in &program.served {
        let listener = &program.listeners[usize::from(id.0)];
        let line = start_line(zone, listener, listener.address.port());
        shown.push_str(&format!(
            "{line} = {} {}\n",
            listener.name, listener.address
        ));
    }
    for chain in program.server.chains() {
        shown.push_str(&format!("[{}]\n", chain.join(" ")));
    }
    for warning in &program.warnings {
        shown.push_str(&format!("warning: {}\n", warning.what));
    }
    shown
}

#[track_caller]
fn expect(text: &str, expected: &[&str]) {
    let lines: Vec<String> = built(text).lines().map(str::to_owned).collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn keys_become_listeners_and_directives_chains() {
    expect(
        ".:1053 {\nwhoami\nlog\nerrors\n}\nexample.org b:54 {\nbind 127.0.0.1 ::1\nwhoami\n}",
        &[
            ".:1053 = dns://:1053 [::]:1053",
            "b.:54 on 127.0.0.1 = dns://127.0.0.1:54 127.0.0.1:54",
            "b.:54 on ::1 = dns://[::1]:54 [::1]:54",
            "example.org.:53 on 127.0.0.1 = dns://127.0.0.1:53 127.0.0.1:53",
            "example.org.:53 on ::1 = dns://[::1]:53 [::1]:53",
            "[errors log whoami]",
            "[whoami]",
        ],
    );
    expect(
        "10.0.0.0/15 {\n}",
        &[
            "0.10.in-addr.arpa.:53 = dns://:53 [::]:53",
            "1.10.in-addr.arpa.:53 = dns://:53 [::]:53",
            "[]",
        ],
    );
    expect(
        "a {\nbind 0.0.0.0\n}\nb {\n}",
        &[
            "a.:53 = dns://:53 [::]:53",
            "b.:53 = dns://:53 [::]:53",
            "[]",
            "[]",
        ],
    );
    expect(
        super::DEFAULT,
        &[".:53 = dns://:53 [::]:53", "[log whoami]"],
    );
}

#[test]
fn every_error_of_a_file_is_told_at_its_place() {
    expect(
        "a..b tls://c {\n    forwrd . 192.0.2.1\n    rewrite name a b\n    whoami x\n}\nd {\n    bufsize 5\n    errors\n    errors\n    xyzzy\n}",
        &[
            "1:1: zone is not a valid domain name: `a..b`: two dots in a row, or a dot at its start",
            "1:6: tls:// is not served yet, only dns:// is: `tls://c`",
            "2:5: unknown plugin `forwrd`; did you mean `forward`?",
            "3:5: plugin `rewrite` of CoreDNS is not part of SkeinDNS yet; remove the line or serve this block with CoreDNS",
            "4:12: whoami: unexpected word `x`; write `whoami`",
            "7:13: bufsize: SIZE must lie between 512 and 4096, got 5",
            "9:5: errors: this plugin can only be used once per server block",
            "10:5: unknown plugin `xyzzy`",
        ],
    );
}

#[test]
fn errors_of_syntax_do_not_hide_the_others() {
    expect(
        "a..b {\n    chache 30\n    cache { } { }\n    bufsize 5\n    log \"open\n}\n",
        &[
            "1:1: zone is not a valid domain name: `a..b`: two dots in a row, or a dot at its start",
            "2:5: unknown plugin `chache`; did you mean `cache`?",
            "3:15: unexpected `{` behind the block; start a new line",
            "4:13: bufsize: SIZE must lie between 512 and 4096, got 5",
            "5:9: this quote is never closed; write `\\\"` for a quote inside a quoted text",
        ],
    );
}

#[test]
fn a_zone_is_served_once_at_each_place() {
    let bound = |hosts: &[&str]| -> Vec<String> {
        let block = |host: &&str| match *host {
            "" => ".:53 {\n}\n".to_owned(),
            host => format!(".:53 {{\nbind {host}\n}}\n"),
        };
        let text: String = hosts.iter().map(block).collect();
        match program(&text) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.lines().map(str::to_owned).collect(),
        }
    };
    assert_eq!(
        bound(&["", ""]),
        ["3:1: cannot serve dns://.:53 - it is already defined"]
    );
    assert_eq!(
        bound(&["", "127.0.0.1"]),
        [
            "3:1: cannot serve dns://.:53 on 127.0.0.1 - zone overlap listener capacity with dns://.:53; `bind` both to addresses or neither"
        ]
    );
    assert_eq!(
        bound(&["127.0.0.1", "127.0.0.2", "127.0.0.3", ""]),
        [
            "10:1: cannot serve dns://.:53 - zone overlap listener capacity with dns://.:53 on 127.0.0.3; `bind` both to addresses or neither"
        ]
    );
    assert_eq!(
        bound(&["127.0.0.1", "127.0.0.1"]),
        ["4:1: cannot serve dns://.:53 on 127.0.0.1 - it is already defined"]
    );
    assert!(bound(&["127.0.0.1", "127.0.0.2"]).is_empty());
    expect(
        "a A a:53 {\n}",
        &[
            "1:3: cannot serve dns://a.:53 - it is already defined",
            "1:5: cannot serve dns://a.:53 - it is already defined",
        ],
    );
    expect(
        "com {\nbind 127.0.0.1\n}\n. {\nbind 127.0.0.1\n}",
        &[
            ".:53 on 127.0.0.1 = dns://127.0.0.1:53 127.0.0.1:53",
            "com.:53 on 127.0.0.1 = dns://127.0.0.1:53 127.0.0.1:53",
            "[]",
            "[]",
        ],
    );
}

#[test]
fn a_block_may_order_its_handlers_differently() {
    let key = "a.:53 = dns://:53 [::]:53";
    let plugins = "errors\nlog\nwhoami";
    let ordered = |lines: &str| format!("a {{\n{plugins}\norder {{\n{lines}\n}}\n}}");
    expect(&ordered("errors after log"), &[key, "[log errors whoami]"]);
    expect(
        &ordered("whoami before errors\nlog before whoami"),
        &[key, "[log whoami errors]"],
    );
    expect(
        "a {\nlog\nwhoami\norder { whoami before log }\n}\nb {\nlog\nwhoami\n}",
        &[
            key,
            "b.:53 = dns://:53 [::]:53",
            "[whoami log]",
            "[log whoami]",
        ],
    );
    expect(
        &ordered(
            "errors after log\nlog after errors\nlogg before log\nerrors beside log\nlog\nlog after log",
        ),
        &[
            "6:1: this line contradicts a later one: `errors` cannot stand after `log`",
            "8:1: unknown plugin `logg`; did you mean `log`?",
            "9:8: write `before` or `after`, got `beside`",
            "10:1: write `PLUGIN before PLUGIN` or `PLUGIN after PLUGIN`, one a line",
            "11:11: a plugin cannot stand before or after itself",
        ],
    );
    expect(
        "a {\norder\n}",
        &["2:1: order takes a block: write `order { cache before etcd }`"],
    );
    expect(
        "a {\nwhoami\nbind ::1\norder { bind after whoami }\n}",
        &[
            "3:1: bind: where to listen must be settled before every handler; leave it out of `order`",
        ],
    );
}

#[test]
fn what_looks_wrong_is_warned_about() {
    expect(
        "example.org,example.com:1053 {\nwhoami\n}",
        &[
            "example.org,example.com.:1053 = dns://:1053 [::]:1053",
            "[whoami]",
            "warning: `example.org,example.com:1053` is one zone with a comma in its name; write `example.org, example.com:1053` for two",
            "warning: domain \"example.org,example.com.\" does not follow RFC1035 preferred syntax",
        ],
    );
    expect(
        "x-y_z.example 0/25.2.0.192.in-addr.arpa a-1.b {\n}",
        &[
            "0/25.2.0.192.in-addr.arpa.:53 = dns://:53 [::]:53",
            "a-1.b.:53 = dns://:53 [::]:53",
            "x-y_z.example.:53 = dns://:53 [::]:53",
            "[]",
            "warning: domain \"x-y_z.example.\" does not follow RFC1035 preferred syntax",
        ],
    );
}
