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

/// One plugin at work in one server block.
pub trait Handler: Send + Sync {
    /// Answers the query, or hands it on with `next`.
    fn serve<'c>(&'c self, query: Query, next: Next<'c>) -> Served<'c>;
}

/// A handler's look at the response on its way back; see [`Served::then`].
pub trait Edit: Send + Sync {
    /// Takes the response, changed or not, on.
    fn edit(&self, response: Response) -> Response;
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
        match self.rest.split_first() {
            Some((link, rest)) => {
                query.enter(link.name);
                link.handler.serve(query, Next { rest })
            }
            None => Served::Now(query.refuse()),
        }
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
        edits: [Option<&'c dyn Edit>; EDITS_MAX],
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = Response> + ?Sized> Future for Waiting<'_, F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let this = self.project();
        let mut response = std::task::ready!(this.future.poll(cx));
        for edit in this.edits.iter_mut().map_while(Option::take) {
            response = edit.edit(response);
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
        match self {
            Served::Now(response) => Served::Now(edit.edit(response)),
            Served::Later(mut later) => {
                match later
                    .as_mut()
                    .project()
                    .edits
                    .iter_mut()
                    .find(|slot| slot.is_none())
                {
                    Some(slot) => {
                        *slot = Some(edit);
                        Served::Later(later)
                    }
                    None => Served::later(async move { edit.edit(later.await) }),
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
