//! Gets items, several at a time, and tells what concerns one item from what concerns all.

use std::{
    collections::{HashSet, VecDeque},
    future::{Future, ready},
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::{Access, ConnectorError, Fetched, OUTAGE, client::ClientError};

type Answer = Result<(String, Fetched), ConnectorError>;

struct State<'a> {
    gets: BoxStream<'a, (String, Result<Fetched, ClientError>)>,
    /// Answers on their way out.
    ready: VecDeque<Answer>,
    /// Failures since the last success. They are answered only when a success shows that they are
    /// the items' own; in an outage they stay unanswered.
    failed: Vec<(String, String)>,
    ended: bool,
}

/// As [`super::Connector::fetch`], with `get` for one item; an error of it is either of the kind that
/// may be an outage, or concerns all.
pub(super) fn each<'a, G, F>(
    access: &'a Access,
    ids: Vec<String>,
    concurrency: usize,
    get: G,
) -> BoxStream<'a, Answer>
where
    G: FnMut(String) -> F + Send + 'a,
    F: Future<Output = (String, Result<Fetched, ClientError>)> + Send + 'a,
{
    let mut known = HashSet::new();
    let ids: Vec<String> = ids
        .into_iter()
        .filter(|id| known.insert(id.clone()))
        .collect();
    let leaving = &access.leaving;
    let gets = stream::iter(ids)
        .take_while(|_| ready(!leaving.is_cancelled()))
        .map(get)
        .buffer_unordered(concurrency.max(1))
        .boxed();
    let state = State {
        gets,
        ready: VecDeque::new(),
        failed: Vec::new(),
        ended: false,
    };
    stream::unfold(state, async |mut state| {
        let answer = state.next().await?;
        Some((answer, state))
    })
    .boxed()
}

impl State<'_> {
    async fn next(&mut self) -> Option<Answer> {
        while self.ready.is_empty() {
            if self.ended {
                return None;
            }
            match self.gets.next().await {
                None => {
                    self.ended = true;
                    self.answer_failed();
                }
                Some((id, Ok(fetched))) => {
                    self.answer_failed();
                    self.ready.push_back(Ok((id, fetched)));
                }
                Some((id, Err(ClientError::Unavailable(reason)))) => {
                    self.failed.push((id, reason.clone()));
                    if self.failed.len() >= OUTAGE {
                        self.end(ConnectorError::Unavailable(reason));
                    }
                }
                Some((_, Err(error))) => self.end(error.into()),
            }
        }
        self.ready.pop_front()
    }

    fn answer_failed(&mut self) {
        for (id, reason) in self.failed.drain(..) {
            self.ready.push_back(Ok((id, Fetched::Failed(reason))));
        }
    }

    fn end(&mut self, error: ConnectorError) {
        self.gets = stream::empty().boxed();
        self.failed.clear();
        self.ready.push_back(Err(error));
        self.ended = true;
    }
}
