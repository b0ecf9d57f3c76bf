//! A question as a conversation writes it: `www.example.org. A +do +tcp`, or `raw HEX`; and the packet it makes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::reply::octets;
use crate::kit::query::Transport;
use crate::kit::wire::{Class, Name, Opcode, Rtype};

/// The ID of questions that name none.
const ID: u16 = 1234;
/// The client's port, where none is named.
const CLIENT_PORT: u16 = 40_000;
/// EDNS payload size of questions that have EDNS and name no size.
const EDNS_SIZE: u16 = 1232;
/// The client's half of a cookie, where none is named.
const COOKIE: &str = "1122334455667788";

/// One question, ready to be handed to the edge.
#[derive(Clone, Debug)]
pub struct Question {
    /// The packet.
    pub packet: Vec<u8>,
    /// Who asks.
    pub client: SocketAddr,
    /// Whom: the address; the port is `port`'s business.
    pub local: IpAddr,
    /// Which port; the first listener's, if none is named.
    pub port: Option<u16>,
    /// How.
    pub transport: Transport,
    /// How often: `+x5`.
    pub times: usize,
    /// How many ask at the same moment: `+together=5`.
    pub together: usize,
    /// Largest response that this client takes.
    pub size_max: usize,
}

#[derive(Default)]
struct Edns {
    size: Option<u16>,
    version: u8,
    flags: u16,
    options: Vec<(u16, Vec<u8>)>,
    present: bool,
}

impl Edns {
    fn option(&mut self, code: u16, data: Vec<u8>) {
        self.present = true;
        self.options.push((code, data));
    }

    fn wire(&self) -> Vec<u8> {
        let mut options = Vec::new();
        for (code, data) in &self.options {
            options.extend_from_slice(&code.to_be_bytes());
            options.extend_from_slice(&(data.len() as u16).to_be_bytes());
            options.extend_from_slice(data);
        }
        let mut wire = vec![0, 0, 41];
        wire.extend_from_slice(&self.size.unwrap_or(EDNS_SIZE).to_be_bytes());
        wire.extend_from_slice(&[0, self.version]);
        wire.extend_from_slice(&self.flags.to_be_bytes());
        wire.extend_from_slice(&(options.len() as u16).to_be_bytes());
        wire.extend_from_slice(&options);
        wire
    }
}

impl Question {
    /// Reads `NAME TYPE [+…]`.
    ///
    /// `+tcp +do +cd +ad +tc +z +norec +edns[=VERSION] +bufsize=N +optz=FLAGS +nsid +cookie[=HEX] +ecs=NET/LEN +padding=N
    /// +opt=CODE:HEX +class=CH +opcode=N +id=N +6 +src=IP +dst=IP +cport=N +port=N +x5 +together=5`.
    pub fn parse(text: &str) -> Result<Question, String> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("a question is NAME TYPE")?;
        let rtype = words.next().ok_or("a question is NAME TYPE")?;
        let name = Name::parse(name).map_err(|error| format!("{name}: {error:?}"))?;
        let rtype = Rtype::parse(rtype).ok_or_else(|| format!("{rtype} is no record type"))?;
        let mut reading = Reading {
            question: Question::of(Vec::new()),
            flags: 0x0100,
            class: Class::IN,
            id: ID,
            edns: Edns::default(),
        };
        for word in words {
            reading
                .option(word)
                .map_err(|what| format!("{word}: {what}"))?;
        }
        Ok(reading.done(&name, rtype))
    }

    /// Reads `raw`'s words: hexadecimal octets, `[name]` for a name in wire form, `HH*N` for repeated octets, and the options that
    /// are not about the packet (`+tcp`, `+6`, `+src=` …).
    pub fn parse_raw(text: &str) -> Result<Question, String> {
        let mut reading = Reading {
            question: Question::of(Vec::new()),
            flags: 0,
            class: Class::IN,
            id: 0,
            edns: Edns::default(),
        };
        let mut packet = Vec::new();
        for word in text.split_whitespace() {
            if word.starts_with('+') {
                reading
                    .option(word)
                    .map_err(|what| format!("{word}: {what}"))?;
            } else if let Some(name) = word.strip_prefix('[') {
                let name = Name::parse(name.trim_end_matches(']'))
                    .map_err(|error| format!("{word}: {error:?}"))?;
                packet.extend_from_slice(name.as_wire());
            } else if let Some((hex, times)) = word.split_once('*') {
                let times = times.parse().map_err(|_| format!("{word}: HH*N"))?;
                packet.extend(octets(hex)?.repeat(times));
            } else {
                packet.extend(octets(word)?);
            }
        }
        let mut question = reading.question;
        question.packet = packet;
        // What a hostile packet says about sizes is not looked into: the edge's own limit holds.
        question.size_max = match question.transport {
            Transport::Udp => usize::from(EDNS_SIZE),
            Transport::Tcp => usize::from(u16::MAX),
        };
        Ok(question)
    }

    fn of(packet: Vec<u8>) -> Question {
        Question {
            packet,
            client: SocketAddr::from((Ipv4Addr::LOCALHOST, CLIENT_PORT)),
            local: Ipv4Addr::LOCALHOST.into(),
            port: None,
            transport: Transport::Udp,
            times: 1,
            together: 0,
            size_max: 0,
        }
    }
}

struct Reading {
    question: Question,
    flags: u16,
    class: Class,
    id: u16,
    edns: Edns,
}

impl Reading {
    fn option(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let question = &mut self.question;
        match key {
            "+tcp" => question.transport = Transport::Tcp,
            "+6" => {
                question.client.set_ip(Ipv6Addr::LOCALHOST.into());
                question.local = Ipv6Addr::LOCALHOST.into();
            }
            "+src" => question
                .client
                .set_ip(value.parse().map_err(|_| "not an address")?),
            "+dst" => question.local = value.parse().map_err(|_| "not an address")?,
            "+cport" => question.client.set_port(number(value)?),
            "+port" => question.port = Some(number(value)?),
            "+id" => self.id = number(value)?,
            "+norec" => self.flags &= !0x0100,
            "+z" => self.flags |= 0x0040,
            "+ad" => self.flags |= 0x0020,
            "+cd" => self.flags |= 0x0010,
            "+tc" => self.flags |= 0x0200,
            "+opcode" => {
                let opcode = Opcode(number(value)? as u8 & 15);
                self.flags |= u16::from(opcode.0) << 11;
            }
            "+class" => self.class = Class::parse(value).ok_or("not a class")?,
            "+do" => {
                self.edns.present = true;
                self.edns.flags |= 0x8000;
            }
            "+optz" => {
                self.edns.present = true;
                self.edns.flags |= number(value)?;
            }
            "+edns" => {
                self.edns.present = true;
                if !value.is_empty() {
                    self.edns.version = number(value)? as u8;
                }
            }
            "+bufsize" => {
                self.edns.present = true;
                self.edns.size = Some(number(value)?);
            }
            "+nsid" => self.edns.option(3, Vec::new()),
            "+cookie" => {
                let cookie = if value.is_empty() { COOKIE } else { value };
                self.edns.option(10, octets(cookie)?);
            }
            "+padding" => self.edns.option(12, vec![0; usize::from(number(value)?)]),
            "+ecs" => self.edns.option(8, client_subnet(value)?),
            "+opt" => {
                let (code, data) = value.split_once(':').ok_or("write +opt=CODE:HEX")?;
                self.edns.option(number(code)?, octets(data)?);
            }
            "+together" => question.together = number(value)?.into(),
            times if times.starts_with("+x") => question.times = number(&times[2..])?.into(),
            _ => return Err("unknown option of a question".into()),
        }
        Ok(())
    }

    fn done(self, name: &Name, rtype: Rtype) -> Question {
        let mut packet = Vec::new();
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&self.flags.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.present)]);
        packet.extend_from_slice(name.as_wire());
        packet.extend_from_slice(&rtype.0.to_be_bytes());
        packet.extend_from_slice(&self.class.0.to_be_bytes());
        if self.edns.present {
            packet.extend(self.edns.wire());
        }
        let size_max = match (self.question.transport, self.edns.present) {
            (Transport::Tcp, _) => u16::MAX,
            // RFC 6891 §6.2.5: a size below 512 means 512.
            (Transport::Udp, true) => self.edns.size.unwrap_or(EDNS_SIZE).clamp(512, EDNS_SIZE),
            (Transport::Udp, false) => 512,
        };
        Question {
            packet,
            size_max: usize::from(size_max),
            ..self.question
        }
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "not a number".to_owned())
}

/// RFC 7871 §6.
fn client_subnet(text: &str) -> Result<Vec<u8>, String> {
    let (address, length) = text.split_once('/').ok_or("write +ecs=ADDRESS/LENGTH")?;
    let length: u8 = length.parse().map_err(|_| "not a prefix length")?;
    let (family, octets) = match address.parse().map_err(|_| "not an address")? {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (2, v6.octets().to_vec()),
    };
    let mut data = vec![0, family, length, 0];
    data.extend(octets.iter().take(usize::from(length.div_ceil(8))));
    Ok(data)
}
