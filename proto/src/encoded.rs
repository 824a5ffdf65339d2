//! Segments that are bytes already, sent as the generated client sends its messages.

use std::sync::Arc;

use prost::bytes::BufMut as _;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::client::GrpcService;
use tonic::codec::BufferSettings;
use tonic::codec::Codec;
use tonic::codec::EncodeBuf;
use tonic::codec::Encoder;
use tonic::codegen::Body as HttpBody;
use tonic::codegen::Bytes;
use tonic::codegen::StdError;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic_prost::ProstDecoder;

use crate::v3::Commands;

/// `TraceSegmentReportService.collect` with messages that are the bytes of a `SegmentObject` each.
///
/// # Errors
/// What the generated client's method would give.
pub async fn collect<T>(
    channel: T,
    segments: Request<impl Stream<Item = Arc<[u8]>> + Send + 'static>,
) -> Result<Response<Commands>, Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = Grpc::new(channel);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))?;
    let path = PathAndQuery::from_static("/skywalking.v3.TraceSegmentReportService/collect");
    client.client_streaming(segments, path, Encoded).await
}

/// Bytes out, prost's messages in.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Arc<[u8]>;
    type Decode = Commands;
    type Encoder = Encoded;
    type Decoder = ProstDecoder<Commands>;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> ProstDecoder<Commands> {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for Encoded {
    type Item = Arc<[u8]>;
    type Error = Status;

    fn encode(&mut self, segment: Arc<[u8]>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&segment);
        Ok(())
    }
}
