//! A SkyWalking collector that writes down what it gets, and can be asked to behave badly.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use proto::v3::Commands;
use proto::v3::Event;
use proto::v3::InstancePingPkg;
use proto::v3::InstanceProperties;
use proto::v3::MeterData;
use proto::v3::MeterDataCollection;
use proto::v3::SegmentObject;
use proto::v3::event_service_server::EventService;
use proto::v3::event_service_server::EventServiceServer;
use proto::v3::management_service_server::ManagementService;
use proto::v3::management_service_server::ManagementServiceServer;
use proto::v3::meter_report_service_server::MeterReportService;
use proto::v3::meter_report_service_server::MeterReportServiceServer;
use proto::v3::trace_segment_report_service_server::TraceSegmentReportService;
use proto::v3::trace_segment_report_service_server::TraceSegmentReportServiceServer;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::Streaming;
use tonic::transport::Server;

/// What was received, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// `reportInstanceProperties`.
    pub properties: Vec<InstanceProperties>,
    /// `keepAlive`.
    pub pings: Vec<InstancePingPkg>,
    /// Each closed stream of `TraceSegmentReportService.collect`.
    pub segment_streams: Vec<Vec<SegmentObject>>,
    /// Each closed stream of `MeterReportService.collectBatch`.
    pub meter_streams: Vec<Vec<MeterDataCollection>>,
    /// Each closed stream of `EventService.collect`; of one that was ended by a rejection, what came before.
    pub event_streams: Vec<Vec<Event>>,
    /// Segments that were counted and not kept ([`Manners::only_count`]).
    pub counted: u64,
    /// Names of the calls, in order, refused ones too.
    pub calls: Vec<&'static str>,
}

impl Received {
    /// All segments, whatever their stream.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentObject> {
        self.segment_streams.iter().flatten()
    }

    /// The meters of each instance and time, whatever their stream.
    pub fn meters(&self) -> impl Iterator<Item = &[MeterData]> {
        self.meter_streams.iter().flatten().map(|collection| collection.meter_data.as_slice())
    }

    /// All events, whatever their stream.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.event_streams.iter().flatten()
    }

    /// Everything if it is little, else how much of what.
    fn summary(&self) -> String {
        if self.calls.len() <= 20 {
            return format!("{self:#?}");
        }
        format!(
            "{} properties, {} pings, {} segments in {} streams, meters of {} instances, {} events, {} calls",
            self.properties.len(),
            self.pings.len(),
            self.segments().count(),
            self.segment_streams.len(),
            self.meters().count(),
            self.events().count(),
            self.calls.len()
        )
    }
}

/// How the collector behaves.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Answers `PERMISSION_DENIED` to calls without this token.
    pub token: Option<String>,
    /// Answers everything with this code.
    pub refuse: Option<Code>,
    /// Ends a stream of events with `INVALID_ARGUMENT` at one with this uuid.
    pub unwanted_event: Option<String>,
    /// Waits before each answer.
    pub delay: Duration,
    /// Counts segments and keeps none: for more than memory can hold.
    pub only_count: bool,
}

#[derive(Default)]
struct Book {
    received: Received,
    manners: Manners,
}

/// A collector on a loopback port, with a runtime of its own: ending that is what closes every connection.
pub struct Collector {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    runtime: Option<Runtime>,
}

impl Collector {
    /// Listens on a free port.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn start() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut collector = Self { address, book: Arc::default(), runtime: None };
        collector.restart();
        collector
    }

    /// `host:port` for the reporter's settings.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// From now on, behave like this.
    pub fn behave(&self, manners: Manners) {
        lock(&self.book).manners = manners;
    }

    /// A copy of what was received so far.
    pub fn received(&self) -> Received {
        lock(&self.book).received.clone()
    }

    /// What `of` says of what was received so far.
    pub fn look<T>(&self, of: impl FnOnce(&Received) -> T) -> T {
        of(&lock(&self.book).received)
    }

    /// Forgets what was received.
    pub fn forget(&self) {
        lock(&self.book).received = Received::default();
    }

    /// Closes the port and every connection.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own: a runtime must not wait for the end of another.
            let ended = thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join();
            debug_assert!(ended.is_ok());
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Panics
    /// If another process took the port meanwhile.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its collector")]
    pub fn restart(&mut self) {
        self.stop();
        let listener = TcpListener::bind(self.address).expect("the collector's port is free");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        self.address = listener.local_addr().expect("a bound socket has an address");
        let calls = Calls(Arc::clone(&self.book));
        let server = Server::builder()
            .add_service(ManagementServiceServer::new(calls.clone()))
            .add_service(TraceSegmentReportServiceServer::new(calls.clone()))
            .add_service(MeterReportServiceServer::new(calls.clone()))
            .add_service(EventServiceServer::new(calls));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("the collector serves");
        });
        self.runtime = Some(runtime);
    }

    /// Waits until `done` is content with what was received, and returns that.
    ///
    /// # Panics
    /// If it is not within `limit`; the message says `what` was awaited and what had come.
    #[expect(clippy::panic, reason = "this is how a test fails")]
    pub async fn wait(&self, what: &str, limit: Duration, done: impl Fn(&Received) -> bool) -> Received {
        let until = Instant::now() + limit;
        loop {
            {
                let book = lock(&self.book);
                if done(&book.received) {
                    return book.received.clone();
                }
                if Instant::now() >= until {
                    panic!("no {what} within {limit:?}; received: {}", book.received.summary());
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Calls(Arc<Mutex<Book>>);

impl Calls {
    /// Notes the call, refuses it if the manners say so.
    async fn admit<T>(&self, name: &'static str, request: Request<T>) -> Result<T, Status> {
        let manners = {
            let mut book = lock(&self.0);
            book.received.calls.push(name);
            book.manners.clone()
        };
        sleep(manners.delay).await;
        if let Some(code) = manners.refuse {
            return Err(Status::new(code, "the collector was told to refuse"));
        }
        let given = request.metadata().get("authentication").and_then(|token| token.to_str().ok());
        if manners.token.is_some() && manners.token.as_deref() != given {
            return Err(Status::permission_denied(""));
        }
        Ok(request.into_inner())
    }

    fn note(&self, write: impl FnOnce(&mut Received)) -> Response<Commands> {
        write(&mut lock(&self.0).received);
        Response::new(Commands::default())
    }
}

#[tonic::async_trait]
impl ManagementService for Calls {
    async fn report_instance_properties(
        &self,
        request: Request<InstanceProperties>,
    ) -> Result<Response<Commands>, Status> {
        let properties = self.admit("reportInstanceProperties", request).await?;
        Ok(self.note(|received| received.properties.push(properties)))
    }

    async fn keep_alive(&self, request: Request<InstancePingPkg>) -> Result<Response<Commands>, Status> {
        let ping = self.admit("keepAlive", request).await?;
        Ok(self.note(|received| received.pings.push(ping)))
    }
}

#[tonic::async_trait]
impl TraceSegmentReportService for Calls {
    async fn collect(
        &self,
        request: Request<Streaming<SegmentObject>>,
    ) -> Result<Response<Commands>, Status> {
        let mut stream = self.admit("TraceSegmentReportService.collect", request).await?;
        if lock(&self.0).manners.only_count {
            let mut counted = 0;
            while stream.message().await?.is_some() {
                counted += 1;
            }
            return Ok(self.note(|received| received.counted += counted));
        }
        let messages = all(stream).await?;
        Ok(self.note(|received| received.segment_streams.push(messages)))
    }
}

#[tonic::async_trait]
impl MeterReportService for Calls {
    /// The agent's way, which nobody asks about.
    async fn collect(&self, request: Request<Streaming<MeterData>>) -> Result<Response<Commands>, Status> {
        all(self.admit("MeterReportService.collect", request).await?).await?;
        Ok(Response::new(Commands::default()))
    }

    async fn collect_batch(
        &self,
        request: Request<Streaming<MeterDataCollection>>,
    ) -> Result<Response<Commands>, Status> {
        let messages = all(self.admit("MeterReportService.collectBatch", request).await?).await?;
        Ok(self.note(|received| received.meter_streams.push(messages)))
    }
}

#[tonic::async_trait]
impl EventService for Calls {
    async fn collect(&self, request: Request<Streaming<Event>>) -> Result<Response<Commands>, Status> {
        let mut messages = all(self.admit("EventService.collect", request).await?).await?;
        let unwanted = lock(&self.0).manners.unwanted_event.clone();
        let wanted = messages.iter().position(|event| Some(&event.uuid) == unwanted.as_ref());
        messages.truncate(wanted.unwrap_or(messages.len()));
        let taken = self.note(|received| received.event_streams.push(messages));
        if wanted.is_some() { Err(Status::invalid_argument("unwanted")) } else { Ok(taken) }
    }
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
