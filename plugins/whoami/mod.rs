//! whoami: answers with the client's own address and port; what a server without a configuration does.

use std::net::IpAddr;

use crate::kit::errors::SetupErrors;
use crate::kit::handler::{Handler, Next, Served};
use crate::kit::options::Checked;
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::query::{Query, Transport};
use crate::kit::response::{Owner, Source};
use crate::kit::setup::ServerSetup;
use crate::kit::wire::name::NAME_OCTETS_MAX;
use crate::kit::wire::writer::Rdata;
use crate::kit::wire::{Rtype, Section};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "whoami",
    aliases: &[],
    summary: "answers with the client's own address, port and transport",
    arguments: &[],
    options: &[],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

fn setup(_: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    server.chain(Whoami);
    Ok(())
}

struct Whoami;

impl Handler for Whoami {
    fn serve<'c>(&'c self, query: Query, _: Next<'c>) -> Served<'c> {
        let client = query.client();
        let proto: &[u8] = match query.transport() {
            Transport::Udp => b"\x04_udp",
            Transport::Tcp => b"\x04_tcp",
        };
        let mut service = [0; NAME_OCTETS_MAX + 5];
        let qname = query.qname_as_spelled();
        let service_len = proto.len() + qname.len();
        service[..proto.len()].copy_from_slice(proto);
        service[proto.len()..service_len].copy_from_slice(qname);

        let answer = query.answer().authoritative().source(Source::Synthesized);
        let answer = match client.ip().to_canonical() {
            IpAddr::V4(ip) => answer.record(
                Section::Additional,
                Owner::Question,
                Rtype::A,
                0,
                Rdata::Raw(&ip.octets()),
            ),
            IpAddr::V6(ip) => answer.record(
                Section::Additional,
                Owner::Question,
                Rtype::AAAA,
                0,
                Rdata::Raw(&ip.octets()),
            ),
        };
        // A name of 251 octets or more has no room for the service label.
        let answer = if service_len <= NAME_OCTETS_MAX {
            let srv = Rdata::Srv(0, 0, client.port(), &[0]);
            answer.record(
                Section::Additional,
                Owner::Name(&service[..service_len]),
                Rtype::SRV,
                0,
                srv,
            )
        } else {
            answer
        };
        Served::Now(answer.done())
    }
}
