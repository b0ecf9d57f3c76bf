//! How a plugin takes part: [`Handler`], what is behind it in the chain ([`Next`]), and an answer
//! now or later ([`Served`]).
//!
//! ```text
//!   edge ──Query──▶ metrics ──▶ log ──▶ cache ──▶ forward
//!        ◀─Response── edits on the way back ◀──────┘  (Served::Now, or Later when somebody waits)
//! ```
//! A query that is answered without waiting is a chain of ordinary calls: nothing is allocated.
//! Waiting costs one box, made by [`Served::later`]; [`Served::then`] adds edits to that box.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::query::Query;
use super::response::Response;
use super::wire::Opcode;

/// One plugin at work in one server block.
pub trait Handler: Send + Sync {
    /// Answers the query, or hands it on with `next`.
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c>;

    /// Whether messages with this opcode come here; the edge lets QUERY and NOTIFY (RFC 1996) into the chain. A handler that is not asked is
    /// passed by, so that what answers questions never takes a NOTIFY for one. Who looks at everything says yes to all.
    fn serves(&self, opcode: Opcode) -> bool {
        opcode == Opcode::QUERY
    }
}

/// A handler's look at the response on its way back; see [`Served::then`].
pub trait Edit: Send + Sync {
    /// Takes the response, changed or not, on.
    fn edit(&self, response: Response) -> Response;

    /// The same for [`Served::then_noted`], with the number that was noted there.
    fn edit_noted(&self, response: Response, _note: u64) -> Response {
        self.edit(response)
    }

    /// No response will come: the wait for it was dropped, or a handler behind panicked while somebody waited.
    fn abandoned(&self, _note: u64) {}
}

/// An edit that is still to come, with its note.
#[derive(Clone, Copy)]
struct Noted<'c> {
    edit: &'c dyn Edit,
    note: u64,
}

/// A [`Noted`] outside a [`Waiting`], which looks after its own.
struct Owed<'c>(Option<Noted<'c>>);

impl Owed<'_> {
    fn edit(mut self, response: Response) -> Response {
        match self.0.take() {
            Some(noted) => noted.edit.edit_noted(response, noted.note),
            None => response,
        }
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if let Some(noted) = self.0.take() {
            noted.edit.abandoned(noted.note);
        }
    }
}

/// One handler in its place in a chain.
pub struct Link {
    /// The plugin's name, as the Dnsfile spells it.
    pub name: &'static str,
    /// The plugin at work.
    pub handler: Box<dyn Handler>,
}

/// The handlers after this one.
#[derive(Clone, Copy)]
pub struct Next<'c> {
    rest: &'c [Link],
}

impl<'c> Next<'c> {
    /// The whole chain, or what is left of it.
    pub fn new(rest: &'c [Link]) -> Next<'c> {
        Next { rest }
    }

    /// Hands the query to the next handler; behind the last one it is refused.
    pub fn serve(self, mut query: Query) -> Served<'c> {
        let opcode = query.opcode();
        let mut rest = self.rest;
        while let Some((link, behind)) = rest.split_first() {
            if opcode == Opcode::QUERY || link.handler.serves(opcode) {
                query.enter(link.name);
                return link.handler.serve(query, Next { rest: behind });
            }
            rest = behind;
        }
        Served::Now(query.refuse())
    }

    /// The name of the next handler, if there is one.
    pub fn name(&self) -> Option<&'static str> {
        self.rest.first().map(|link| link.name)
    }
}

/// Edits that fit beside a waiting future; further ones cost another box.
const EDITS_MAX: usize = 8;

pin_project! {
    /// A response under way, with the edits it gets when it comes.
    pub struct Waiting<'c, F: ?Sized> {
        edits: [Option<Noted<'c>>; EDITS_MAX],
        #[pin]
        future: F,
    }

    impl<F: ?Sized> PinnedDrop for Waiting<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            for noted in this.project().edits.iter_mut().filter_map(Option::take) {
                noted.edit.abandoned(noted.note);
            }
        }
    }
}

impl<F: Future<Output = Response> + ?Sized> Future for Waiting<'_, F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let this = self.project();
        let mut response = std::task::ready!(this.future.poll(cx));
        for noted in this.edits.iter_mut().map_while(Option::take) {
            response = noted.edit.edit_noted(response, noted.note);
        }
        Poll::Ready(response)
    }
}

/// The box of a [`Waiting`] response.
pub type Later<'c> = Pin<Box<Waiting<'c, dyn Future<Output = Response> + Send + 'c>>>;

/// A response, now or later.
#[must_use]
pub enum Served<'c> {
    /// Here it is.
    Now(Response),
    /// Somebody has to wait for it.
    Later(Later<'c>),
}

impl<'c> Served<'c> {
    /// Waits; the one place that boxes.
    pub fn later(waiting: impl Future<Output = Response> + Send + 'c) -> Self {
        Served::Later(Box::pin(Waiting {
            edits: [None; EDITS_MAX],
            future: waiting,
        }))
    }

    /// Lets `edit` (mostly the handler itself) see the response on its way back. No allocation.
    pub fn then(self, edit: &'c dyn Edit) -> Self {
        self.then_noted(edit, 0)
    }

    /// [`then`](Served::then) with a number that comes back: to [`Edit::edit_noted`] with the response, or to
    /// [`Edit::abandoned`] without one.
    pub fn then_noted(self, edit: &'c dyn Edit, note: u64) -> Self {
        match self {
            Served::Now(response) => Served::Now(edit.edit_noted(response, note)),
            Served::Later(mut later) => {
                match later
                    .as_mut()
                    .project()
                    .edits
                    .iter_mut()
                    .find(|slot| slot.is_none())
                {
                    Some(slot) => {
                        *slot = Some(Noted { edit, note });
                        Served::Later(later)
                    }
                    None => {
                        let owed = Owed(Some(Noted { edit, note }));
                        Served::later(async move { owed.edit(later.await) })
                    }
                }
            }
        }
    }

    /// Edits the response with a closure, whenever it comes; boxes again when somebody waits.
    pub fn map(self, edit: impl FnOnce(Response) -> Response + Send + 'c) -> Self {
        match self {
            Served::Now(response) => Served::Now(edit(response)),
            Served::Later(later) => Served::later(async move { edit(later.await) }),
        }
    }

    /// Waits for it; what an asynchronous handler calls on `next.serve(..)`.
    pub async fn response(self) -> Response {
        match self {
            Served::Now(response) => response,
            Served::Later(later) => later.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::kit::query::Slot;
    use crate::kit::wire::Rcode;

    /// Counts what it is told: responses in the low half, abandonments in the high half.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl Edit for Count {
        fn edit(&self, response: Response) -> Response {
            response
        }
        fn edit_noted(&self, response: Response, note: u64) -> Response {
            self.0.fetch_add(note, Relaxed);
            response
        }
        fn abandoned(&self, note: u64) {
            self.0.fetch_add(note << 32, Relaxed);
        }
    }

    fn response() -> Response {
        Query::from_slot(Slot::new()).rcode(Rcode::NOERROR)
    }

    fn poll_once(served: Served<'_>) {
        if let Served::Later(mut later) = served {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = later.as_mut().poll(&mut cx);
        }
    }

    #[test]
    fn every_noted_edit_hears_of_a_response_once() {
        let count = Count::default();
        let mut served = Served::later(async { response() });
        for note in 1..=12 {
            served = served.then_noted(&count, note);
        }
        poll_once(served);
        assert_eq!(count.0.load(Relaxed), 78);
    }

    #[test]
    fn every_noted_edit_hears_of_a_dropped_wait_once() {
        let count = Count::default();
        let mut served = Served::later(std::future::pending());
        for note in 1..=12 {
            served = served.then_noted(&count, note);
        }
        poll_once(served);
        assert_eq!(count.0.load(Relaxed), 78 << 32);
    }
}
