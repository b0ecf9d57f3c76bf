//! A steady load of queries, every answer of which is compared with what it must be.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::support::{PATIENCE, addresses, query};

/// After that a query counts as not answered: a client's resolver has given up by then.
const MISSING_AFTER: Duration = Duration::from_secs(5);
/// Sockets, each with a buffer in the kernel: together they hold what comes while this process waits for its turn on a busy machine. A question
/// is always asked through the same one, so that its answers come in order.
const SOCKETS: usize = 8;
/// Wrong answers that are described; the others are only counted.
const EXAMPLES_MAX: usize = 5;

/// A question of the load and what its answer must be.
pub(crate) struct Question {
    packet: Vec<u8>,
    what: String,
    expected: Expected,
}

enum Expected {
    /// The same octets each time, but for the ID.
    Same(Vec<u8>),
    /// NXDOMAIN.
    Absent,
    /// One address that was written at some time, and no earlier one than was seen before.
    Written(usize),
}

impl Question {
    /// About a name that does not change: its answer now is its answer for ever.
    pub(crate) fn still(port: u16, name: &str, rtype: RecordType) -> Question {
        let mut question = Question::new(name, rtype, Expected::Absent);
        let reply = exchange(port, &question.packet);
        let message = Message::from_vec(&reply).expect("a message");
        let is_good = message.metadata.response_code == ResponseCode::NoError;
        assert!(is_good && !message.answers.is_empty(), "{name}: {message}");
        question.expected = Expected::Same(reply);
        question
    }

    /// About a name that never exists.
    pub(crate) fn absent(name: &str) -> Question {
        Question::new(name, RecordType::A, Expected::Absent)
    }

    /// About one of the names whose addresses are written over and over.
    pub(crate) fn written(name: &str, index: usize) -> Question {
        Question::new(name, RecordType::A, Expected::Written(index))
    }

    fn new(name: &str, rtype: RecordType, expected: Expected) -> Question {
        Question {
            packet: query(name, rtype).to_vec().expect("a small query"),
            what: format!("{name} {rtype}"),
            expected,
        }
    }
}

fn exchange(port: u16, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket
        .connect((Ipv4Addr::LOCALHOST, port))
        .expect("loopback");
    socket.send(packet).expect("it listens");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

/// What the writer has written of one name: values grow.
#[derive(Default)]
pub(crate) struct Written {
    /// The largest that may have been written.
    pub(crate) newest: AtomicU32,
    /// The largest that was answered; 0 while a write may still come true late, or the cluster go back to a backup.
    seen: AtomicU32,
    /// Whether answers may go back.
    pub(crate) is_loose: AtomicBool,
}

impl Written {
    fn takes(&self, value: u32) -> bool {
        let seen = self.seen.load(Ordering::SeqCst);
        let is_loose = self.is_loose.load(Ordering::SeqCst);
        self.seen
            .store(if is_loose { 0 } else { value }, Ordering::SeqCst);
        value <= self.newest.load(Ordering::SeqCst) && (is_loose || value >= seen)
    }
}

/// What became of queries.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// Answered otherwise than it must be.
    pub(crate) wrong: u64,
    /// Answered SERVFAIL or the like.
    pub(crate) failed: u64,
    /// Not answered.
    pub(crate) missing: u64,
    pub(crate) slowest: Duration,
    pub(crate) examples: Vec<String>,
}

impl Counts {
    fn note(&mut self, example: impl fmt::Display) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example.to_string());
        }
    }
}

/// Questions asked in turn, so many a second, until it is dropped.
pub(crate) struct Load {
    counts: Arc<Mutex<Counts>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(
        port: u16,
        rate: u32,
        questions: Vec<Question>,
        written: Arc<Vec<Written>>,
    ) -> Load {
        let socket = |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
            socket
                .connect((Ipv4Addr::LOCALHOST, port))
                .expect("loopback");
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        let (counts, stop) = (Arc::default(), Arc::<AtomicBool>::default());
        let mut asking = Asking {
            sockets: (0..SOCKETS).map(socket).collect(),
            questions,
            written,
            counts: Arc::clone(&counts),
            under_way: HashMap::new(),
            next: 0,
        };
        let until = Arc::clone(&stop);
        let every = Duration::from_secs(1) / rate;
        let thread = std::thread::spawn(move || asking.run(every, &until));
        Load {
            counts,
            stop,
            thread: Some(thread),
        }
    }

    /// What became of the queries since the last call.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Asking {
    sockets: Vec<UdpSocket>,
    questions: Vec<Question>,
    written: Arc<Vec<Written>>,
    counts: Arc<Mutex<Counts>>,
    // By ID: which question, and when.
    under_way: HashMap<u16, (usize, Instant)>,
    next: usize,
}

impl Asking {
    fn run(&mut self, every: Duration, stop: &AtomicBool) {
        let mut due = Instant::now();
        let mut swept = due;
        while !stop.load(Ordering::SeqCst) {
            while due <= Instant::now() {
                self.ask();
                due += every;
            }
            self.receive();
            if swept.elapsed() > Duration::from_millis(100) {
                swept = Instant::now();
                self.sweep();
            }
            // The pace of the load.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self) {
        let id = self.next as u16;
        let which = self.next % self.questions.len();
        self.next += 1;
        let packet = &mut self.questions[which].packet;
        packet[..2].copy_from_slice(&id.to_be_bytes());
        // A refused send (nobody listens) ends up as missing.
        self.sockets[which % SOCKETS].send(packet).ok();
        self.under_way.insert(id, (which, Instant::now()));
        self.counts().asked += 1;
    }

    fn receive(&mut self) {
        let mut buffer = [0; 4096];
        for socket in 0..SOCKETS {
            loop {
                match self.sockets[socket].recv(&mut buffer) {
                    Ok(length) => self.judge(&mut buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What an ICMP message says of an earlier send.
                    Err(_) => {}
                }
            }
        }
    }

    fn judge(&mut self, reply: &mut [u8]) {
        let id = u16::from_be_bytes([reply[0], reply[1]]);
        let Some((which, asked)) = self.under_way.remove(&id) else {
            return;
        };
        let question = &self.questions[which];
        let verdict = self.verdict(question, reply);
        let mut counts = self.counts();
        counts.answered += 1;
        counts.slowest = counts.slowest.max(asked.elapsed());
        match verdict {
            Verdict::Right => {}
            Verdict::Wrong(what) => {
                counts.wrong += 1;
                counts.note(format_args!("{}: {what}", question.what));
            }
            Verdict::Failed(what) => {
                counts.failed += 1;
                counts.note(format_args!("{}: {what}", question.what));
            }
        }
    }

    fn verdict(&self, question: &Question, reply: &mut [u8]) -> Verdict {
        if let Expected::Same(expected) = &question.expected {
            reply[..2].copy_from_slice(&expected[..2]);
            if reply == expected {
                return Verdict::Right;
            }
        }
        let Ok(message) = Message::from_vec(reply) else {
            return Verdict::Wrong("no message".into());
        };
        let rcode = message.metadata.response_code;
        let found = addresses(&message);
        let wrong = || Verdict::Wrong(format!("{rcode} {found:?}"));
        match (&question.expected, rcode) {
            (Expected::Absent, ResponseCode::NXDomain) => Verdict::Right,
            (Expected::Written(index), ResponseCode::NoError) => match found[..] {
                [address] if self.written[*index].takes(value_of(address)) => Verdict::Right,
                _ => wrong(),
            },
            (_, ResponseCode::NoError | ResponseCode::NXDomain) => wrong(),
            _ => Verdict::Failed(rcode.to_string()),
        }
    }

    fn sweep(&mut self) {
        let mut late = Vec::new();
        self.under_way.retain(|_, (which, asked)| {
            let is_late = asked.elapsed() > MISSING_AFTER;
            if is_late {
                late.push(*which);
            }
            !is_late
        });
        let mut counts = self.counts();
        for which in late {
            counts.missing += 1;
            counts.note(format_args!("{}: no answer", self.questions[which].what));
        }
    }
}

enum Verdict {
    Right,
    Wrong(String),
    Failed(String),
}

/// The address that stands for a value.
pub(crate) fn address_of(value: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + value)
}

/// And back.
pub(crate) fn value_of(address: Ipv4Addr) -> u32 {
    u32::from(address).wrapping_sub(0x0a00_0000)
}
