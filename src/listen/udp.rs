//! Datagrams: a batch in, each through edge and chain, a batch out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use skein_plugins::kit::clock;
use skein_plugins::kit::edge::{Arrival, Reply};
use skein_plugins::kit::query::Transport;
use tokio::io::Interest;

use crate::limits::{BATCH, LAST_BATCHES, SEND_WAIT};
use crate::worker::{Current, Listening, Outcome, Phase, Token, UnderWay, Worker};

/// Reads and answers until the generation retires, then answers what is under way. `reading` is let go when it stops to read.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    current: Current,
    reading: Rc<RefCell<Option<Token>>>,
) {
    let mut phase = current.generation.phase.subscribe();
    let server = &*current.generation.server;
    // Borrows from `server`, so it stands behind it.
    let mut waiting: FuturesUnordered<UnderWay<'_>> = FuturesUnordered::new();
    let mut replies: Vec<Reply> = Vec::with_capacity(BATCH);
    let mut last_batches = 0;
    loop {
        let ended = take_ended(&worker, &mut waiting, &mut replies).await;
        let mut received = 0;
        let now = *phase.borrow_and_update();
        if now == Phase::Serve || (reading.borrow().is_some() && listening.is_closing()) {
            received = receive(
                &worker,
                &listening,
                &current,
                server,
                &mut waiting,
                &mut replies,
            );
        }
        if !replies.is_empty() {
            send(&worker, &listening, &mut replies).await;
        }
        if now != Phase::Serve {
            last_batches += 1;
            if received == 0 || last_batches > LAST_BATCHES {
                reading.replace(None);
            }
            if now == Phase::Abandon || (reading.borrow().is_none() && waiting.is_empty()) {
                worker.abandon(waiting.len());
                return;
            }
        }
        if received == BATCH || ended == BATCH {
            // There is more, but timers and other sockets have their turn first.
            tokio::task::yield_now().await;
        } else if received == 0 && ended == 0 {
            tokio::select! {
                biased;
                changed = phase.changed() => {
                    // The process ends without saying so: nobody is left to answer to.
                    if changed.is_err() {
                        return;
                    }
                }
                ended = waiting.next(), if !waiting.is_empty() => {
                    replies.extend(ended.and_then(|ended| worker.finish_later(ended)));
                }
                // An error here shows when the socket is read.
                _ = listening.udp.readable(), if now == Phase::Serve => {}
            }
        }
    }
}

/// Collects what has ended, without waiting; how many it was.
async fn take_ended(
    worker: &Worker,
    waiting: &mut FuturesUnordered<UnderWay<'_>>,
    replies: &mut Vec<Reply>,
) -> usize {
    if waiting.is_empty() {
        return 0;
    }
    poll_fn(|cx| {
        let mut count = 0;
        while count < BATCH
            && let Poll::Ready(Some(ended)) = waiting.poll_next_unpin(cx)
        {
            replies.extend(worker.finish_later(ended));
            count += 1;
        }
        Poll::Ready(count)
    })
    .await
}

/// Receives a batch, if there is one, and serves it; how many packets it was.
fn receive<'c>(
    worker: &Worker,
    listening: &Listening,
    current: &Current,
    server: &'c skein_plugins::kit::program::Server,
    waiting: &mut FuturesUnordered<UnderWay<'c>>,
    replies: &mut Vec<Reply>,
) -> usize {
    let mut receiver = worker.receiver.borrow_mut();
    let mut count = 0;
    let result = listening.udp.try_io(Interest::READABLE, || {
        // An error of an earlier answer (ICMP) is told once, instead of a packet; it concerns nobody any more.
        count = receiver
            .receive(listening.udp.as_fd())
            .or_else(|_| receiver.receive(listening.udp.as_fd()))?;
        if count < BATCH {
            // The queue is empty: the next packet makes the socket readable again, and a call that finds nothing is saved.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    if let Err(error) = result
        && error.kind() != io::ErrorKind::WouldBlock
    {
        tracing::debug!("receiving on {}: {error}", listening.local);
    }
    if count == 0 {
        return 0;
    }
    let received_at = clock::now();
    for at in 0..count {
        let Some(packet) = receiver.packet(at) else {
            continue;
        };
        let arrival = Arrival {
            packet: packet.octets,
            client: packet.client,
            local: listening.local_of(packet.local),
            transport: Transport::Udp,
            listener: current.listener,
            received_at,
        };
        match worker.serve(server, arrival) {
            Outcome::Reply(reply) => replies.push(reply),
            Outcome::Later(under_way) => waiting.push(under_way),
            Outcome::Nothing => {}
        }
    }
    count
}

/// Sends all replies and takes their slots back.
async fn send(worker: &Worker, listening: &Listening, replies: &mut Vec<Reply>) {
    let is_v6 = listening.local.is_ipv6();
    let mut rest = replies.as_slice();
    while !rest.is_empty() {
        let result = listening.udp.try_io(Interest::WRITABLE, || {
            let mut sender = worker.sender.borrow_mut();
            sender.send(listening.udp.as_fd(), rest, is_v6, listening.info)
        });
        match result {
            Ok(sent) => rest = rest.get(sent.max(1)..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let writable = tokio::time::timeout(SEND_WAIT, listening.udp.writable());
                if writable.await.is_err() {
                    worker.count_unsent(rest.len());
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // It is the first one's alone: no route, a firewall, a size that the path does not take.
                tracing::debug!("answering from {}: {error}", listening.local);
                worker.count_unsent(1);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    worker.give_back(replies.drain(..));
}
