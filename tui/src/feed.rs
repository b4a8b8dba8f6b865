//! Where news come from: a gateway's socket, asked by two threads of their own, so that a slow answer never holds up a
//! key.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use patronus_api::{Client, ClientError, WatchQuery};

use crate::data::News;
use crate::model::{Message, Order, Request};

/// Something that tells of a gateway.
pub trait Feed {
    /// Begins to tell; what the console asks goes to the returned end. What cannot be sent any more is lost: the console
    /// is at its end.
    fn start(self: Box<Self>, news: Sender<Message>) -> Sender<Request>;
}

/// A gateway's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayFeed {
    /// Its socket.
    pub socket: PathBuf,
    /// From one snapshot to the next, in milliseconds.
    pub interval_ms: u32,
}

const RETRY: Duration = Duration::from_secs(1);

impl Feed for GatewayFeed {
    fn start(self: Box<Self>, news: Sender<Message>) -> Sender<Request> {
        let (ask, asked) = channel();
        let (watcher, answers) = (news.clone(), news);
        let socket = self.socket.clone();
        // They end with the process, or when the console does not listen any more.
        thread::spawn(move || self.watch(&watcher));
        thread::spawn(move || answer(&socket, &asked, &answers));
        ask
    }
}

impl GatewayFeed {
    /// Follows the gateway for as long as somebody listens; one that is gone is tried again every second.
    fn watch(&self, news: &Sender<Message>) {
        loop {
            let begun = Instant::now();
            let why = match self.follow(news) {
                Ok(()) => continue,
                Err(Ended::Deaf) => return,
                Err(Ended::Lost(error)) => error.to_string(),
            };
            if news.send(Message::News(News::Lost(why))).is_err() {
                return;
            }
            thread::sleep(RETRY.saturating_sub(begun.elapsed()).max(RETRY / 2));
        }
    }

    /// One stream to its end.
    fn follow(&self, news: &Sender<Message>) -> Result<(), Ended> {
        let client = Client::connect(&self.socket)?;
        let query = WatchQuery {
            interval_ms: Some(self.interval_ms),
            count: None,
        };
        let mut stream = client.watch(&query)?;
        while let Some(snapshot) = stream.next_snapshot()? {
            let message = Message::News(News::Snapshot(Box::new(snapshot)));
            news.send(message).map_err(|_| Ended::Deaf)?;
        }
        Ok(())
    }
}

enum Ended {
    /// Nobody listens.
    Deaf,
    Lost(ClientError),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Lost(error)
    }
}

fn answer(socket: &std::path::Path, asked: &Receiver<Request>, news: &Sender<Message>) {
    while let Ok(request) = asked.recv() {
        let answer = Client::connect(socket).and_then(|client| ask(&client, &request));
        let answer = answer.unwrap_or_else(|error| News::Refused(error.to_string()));
        if news.send(Message::News(answer)).is_err() {
            return;
        }
    }
}

/// Asks a gateway.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn ask(client: &Client, request: &Request) -> Result<News, ClientError> {
    let news = match request {
        Request::Flows(query) => News::Flows(client.flows(query)?),
        Request::Rules => News::Rules(client.rules()?),
        Request::Explain(connection) => News::Explained(Box::new(client.explain(connection)?)),
        Request::Order(Order::Path { peer, request, .. }) => {
            News::Ordered(client.path_command(peer, request)?)
        }
        Request::Order(Order::Meter { seconds }) => News::Ordered(client.meter_stages(*seconds)?),
    };
    Ok(news)
}
