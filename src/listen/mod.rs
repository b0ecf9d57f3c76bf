//! Where packets come in and answers go out. `udp.rs` and `tcp.rs` are the two transports, `open.rs` makes their sockets and says who holds
//! a port that is taken, `inherited.rs` has those that systemd opened, `mmsg.rs` is the system call for batches.

pub(crate) mod inherited;
pub(crate) mod mmsg;
pub(crate) mod open;
pub(crate) mod tcp;
pub(crate) mod udp;
