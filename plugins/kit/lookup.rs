//! [`Lookup`]: ask our own server. For CNAME targets outside a zone (the whole server, routing included) and for
//! work behind the answer (the rest of the chain: prefetch, stale refresh).

use std::future::Future;
use std::sync::{Arc, OnceLock, Weak};

use super::errors::ServeError;
use super::handler::Served;
use super::query::{Facts, Query};
use super::response::Response;
use super::wire::Rtype;

/// What a program offers to look-ups.
pub trait Dispatch: Send + Sync {
    /// From the front: routing, then the whole chain.
    fn serve(&self, query: Query) -> Served<'_>;
    /// The rest of chain `chain`, from handler `from` on.
    fn serve_rest(&self, chain: usize, from: usize, query: Query) -> Served<'_>;
}

/// The program, once it is built; weak, since its handlers hold it.
pub type Home = Arc<OnceLock<Weak<dyn Dispatch>>>;

/// A handle to ask with. Cheap to clone.
#[derive(Clone)]
pub struct Lookup {
    pub(crate) home: Home,
    pub(crate) chain: usize,
    pub(crate) behind: usize,
}

impl Lookup {
    fn program(&self) -> Option<Arc<dyn Dispatch>> {
        self.home.get().and_then(Weak::upgrade)
    }

    /// Asks the whole server for `qname` (wire form) as `parent`'s client. `None` when the questions are nested too deep or the server ends.
    pub fn ask(
        &self,
        parent: &Facts,
        qname: &[u8],
        qtype: Rtype,
    ) -> impl Future<Output = Option<Response>> + Send + 'static {
        let query = Query::internal(parent, qname, qtype);
        let program = self.program();
        async move {
            let (query, program) = (query?, program?);
            Some(program.serve(query).response().await)
        }
    }

    /// Hands `query` (mostly a [`Query::duplicate`]) to the handlers behind the plugin that holds this look-up.
    pub fn rest(&self, query: Query) -> impl Future<Output = Response> + Send + 'static {
        let this = self.clone();
        async move {
            match this.program() {
                Some(program) => {
                    program
                        .serve_rest(this.chain, this.behind, query)
                        .response()
                        .await
                }
                None => query.fail(ServeError::Internal("the server is stopping".into())),
            }
        }
    }
}
