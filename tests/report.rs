//! The reporter against a collector: what arrives, and what happens when things go wrong.
#![expect(clippy::expect_used, reason = "this is how a test fails")]

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use harness::collector::Collector;
use harness::collector::Manners;
use harness::collector::Received;
use harness::sample;
use observer::report::Oap;
use observer::report::Report;
use observer::report::encode;
use observer::report::grpc::Settings;
use observer::stats::Reason;
use observer::stats::SharedDrops;
use prost::Message as _;
use proto::v3;
use tonic::Code;

const SOON: Duration = Duration::from_secs(5);

fn settings(endpoint: impl Into<String>) -> Settings {
    Settings {
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_millis(200),
        call_timeout: Duration::from_secs(2),
        ..Settings::new(endpoint)
    }
}

fn start(settings: Settings) -> (Oap, Arc<SharedDrops>) {
    let drops = Arc::new(SharedDrops::default());
    (Oap::start(settings, Arc::clone(&drops)).expect("good settings"), drops)
}

fn pair(key: &str, value: &str) -> v3::KeyStringValuePair {
    v3::KeyStringValuePair { key: key.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn an_instance_is_registered_then_kept_alive() {
    let collector = Collector::start();
    let heartbeat = Duration::from_millis(200);
    let (oap, _) = start(Settings {
        heartbeat: Some(heartbeat),
        properties_factor: Some(3),
        ..settings(collector.endpoint())
    });
    let worker = sample::worker("demo", 9);
    oap.send(Report::Hello(worker.clone()));
    let received = collector.wait("fourth sign of life", SOON, |received| received.pings.len() == 4).await;
    // Properties at the start and with the third sign of life.
    assert_eq!(
        received.calls,
        [
            "reportInstanceProperties",
            "keepAlive",
            "keepAlive",
            "reportInstanceProperties",
            "keepAlive",
            "keepAlive"
        ]
    );
    let properties = &received.properties[0];
    assert_eq!((properties.service.as_str(), properties.service_instance.as_str()), ("demo", &*worker.name));
    assert_eq!(properties.properties[..2], [pair("language", "python"), pair("OS Name", "posix")]);
    assert_eq!(properties.layer, "");
    let ping = &received.pings[0];
    assert_eq!(
        (ping.service.as_str(), ping.service_instance.as_str(), ping.layer.as_str()),
        ("demo", &*worker.name, "")
    );

    oap.send(Report::Bye(worker));
    tokio::time::sleep(heartbeat).await;
    collector.forget();
    tokio::time::sleep(heartbeat * 2).await;
    assert!(collector.received().calls.is_empty());
    assert_eq!(oap.stop(SOON).await, 0);
}

#[tokio::test]
async fn segments_and_meters_arrive_as_they_were() {
    let collector = Collector::start();
    let (oap, drops) = start(settings(collector.endpoint()));
    let (one, two) = (sample::worker("demo", 9), sample::worker("demo", 10));
    oap.send(Report::Segment(sample::segment(&one, "a", 1000)));
    oap.send(Report::Segment(sample::segment(&two, "b", 2000)));
    oap.send(Report::Meters(sample::meters(&one, 5000)));
    oap.send(Report::Meters(sample::meters(&two, 6000)));
    let asked = Instant::now();
    assert_eq!(oap.stop(SOON).await, 0);
    assert!(asked.elapsed() < Duration::from_millis(900), "what waits for company goes at once");
    let received = collector.received();

    assert_eq!(received.segment_streams.len(), 1, "one stream may carry many instances");
    let ids: Vec<_> = received.segments().map(|segment| segment.trace_segment_id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    let expected = v3::SegmentObject {
        trace_id: "trace-a".to_owned(),
        trace_segment_id: "a".to_owned(),
        service: "demo".to_owned(),
        service_instance: one.name.to_string(),
        is_size_limited: false,
        spans: vec![v3::SpanObject {
            span_id: 0,
            parent_span_id: -1,
            start_time: 1000,
            end_time: 1020,
            refs: vec![v3::SegmentReference {
                ref_type: v3::RefType::CrossProcess.into(),
                trace_id: "trace-a".to_owned(),
                parent_trace_segment_id: "caller-segment".to_owned(),
                parent_span_id: 2,
                parent_service: "caller".to_owned(),
                parent_service_instance: "caller-1".to_owned(),
                parent_endpoint: "/front".to_owned(),
                network_address_used_at_peer: "demo:8000".to_owned(),
            }],
            operation_name: "/hello".to_owned(),
            peer: "127.0.0.1:40000".to_owned(),
            span_type: v3::SpanType::Entry.into(),
            span_layer: v3::SpanLayer::Http.into(),
            component_id: 7001,
            is_error: false,
            tags: vec![
                pair("http.method", "GET"),
                pair("http.url", "http://demo:8000/hello"),
                pair("http.status_code", "200"),
            ],
            logs: vec![],
            skip_analysis: false,
        }],
    };
    assert_eq!(received.segments().next(), Some(&expected));

    let meters: Vec<_> = received.meters().collect();
    assert_eq!(meters.len(), 2, "one message per instance");
    for (message, instance, at) in [(meters[0], &one, 5000), (meters[1], &two, 6000)] {
        assert_eq!(message.len(), sample::meters(instance, at).meters.len());
        for (data, meter) in message.iter().zip(sample::meters(instance, at).meters) {
            let value =
                v3::MeterSingleValue { name: meter.name.to_owned(), labels: vec![], value: meter.value };
            assert_eq!(data.metric, Some(v3::meter_data::Metric::SingleValue(value)));
            assert_eq!((data.service_instance.as_str(), data.timestamp), (&*instance.name, at));
        }
    }
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[test]
fn a_segment_of_any_length_is_the_bytes_of_its_message() {
    for length in [0, 1, 100, 127, 128, 300, 16_300, 16_384, 70_000] {
        let mut segment = sample::segment(&sample::worker("demo", 9), "a", 1000);
        segment.spans[0].tags[1].1 = "x".repeat(length).into();
        let mut bytes = Vec::new();
        encode::segment(&segment, &mut bytes);
        let message = v3::SegmentObject::decode(&*bytes).expect("a message");
        assert_eq!(message.spans[0].tags[1].value.len(), length);
        assert_eq!(message.encode_to_vec(), bytes);
    }
}

#[tokio::test]
async fn segments_wait_a_second_for_company() {
    let collector = Collector::start();
    let (oap, _) = start(settings(collector.endpoint()));
    let worker = sample::worker("demo", 9);
    for n in 0..10 {
        oap.send(Report::Segment(sample::segment(&worker, &n.to_string(), 1000)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let received = collector.wait("stream", SOON, |received| !received.segment_streams.is_empty()).await;
    assert_eq!(received.segment_streams[0].len(), 10);
    oap.stop(SOON).await;
}

#[tokio::test]
async fn after_a_restart_of_the_collector_everybody_registers_again_and_nothing_is_lost() {
    let mut collector = Collector::start();
    let (oap, drops) = start(settings(collector.endpoint()));
    let workers = [sample::worker("demo", 9), sample::worker("demo", 10)];
    for worker in &workers {
        oap.send(Report::Hello(worker.clone()));
    }
    collector.wait("registrations", SOON, |received| received.pings.len() == 2).await;
    collector.stop();
    for n in 0..3 {
        oap.send(Report::Segment(sample::segment(&workers[0], &n.to_string(), 1000)));
    }
    oap.send(Report::Meters(sample::meters(&workers[1], 5000)));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    collector.forget();
    collector.restart();
    let received = collector
        .wait("the rest", SOON, |received| received.segments().count() == 3 && received.meters().count() == 1)
        .await;
    assert_eq!((received.properties.len(), received.pings.len()), (2, 2));
    let ids: Vec<_> = received.segments().map(|segment| segment.trace_segment_id.as_str()).collect();
    assert_eq!(ids, ["0", "1", "2"]);
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn a_restart_between_two_calls_is_noticed() {
    let mut collector = Collector::start();
    let heartbeat = Duration::from_millis(600);
    let (oap, _) = start(Settings { heartbeat: Some(heartbeat), ..settings(collector.endpoint()) });
    oap.send(Report::Hello(sample::worker("demo", 9)));
    collector.wait("registration", SOON, |received| received.pings.len() == 1).await;
    // Gone and back before the next sign of life: only the closed connection tells.
    collector.restart();
    collector.forget();
    collector.wait("registration", SOON, |received| received.properties.len() == 1).await;
    oap.stop(SOON).await;
}

#[tokio::test]
async fn a_wrong_token_keeps_the_data_until_the_right_one_is_asked_for() {
    let collector = Collector::start();
    collector.behave(Manners { token: Some("right".to_owned()), ..Manners::default() });
    let authentication = Some("wrong".to_owned());
    let (oap, drops) = start(Settings { authentication, ..settings(collector.endpoint()) });
    let worker = sample::worker("demo", 9);
    oap.send(Report::Hello(worker.clone()));
    oap.send(Report::Segment(sample::segment(&worker, "a", 1000)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = collector.received().calls.len();
    assert!((1..=20).contains(&calls), "{calls} tries: it must try again, and wait between");
    assert!(collector.received().properties.is_empty());
    collector.behave(Manners { token: Some("wrong".to_owned()), ..Manners::default() });
    collector.wait("segment", SOON, |received| received.segments().count() == 1).await;
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn an_overloaded_collector_gets_time() {
    let collector = Collector::start();
    collector.behave(Manners { refuse: Some(Code::ResourceExhausted), ..Manners::default() });
    let (oap, drops) = start(settings(collector.endpoint()));
    oap.send(Report::Meters(sample::meters(&sample::worker("demo", 9), 5000)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = collector.received().calls.len();
    assert!((2..=12).contains(&calls), "{calls} calls in half a second");
    collector.behave(Manners::default());
    collector.wait("meters", SOON, |received| received.meters().count() == 1).await;
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn what_the_collector_does_not_want_is_counted_and_does_not_stop_the_rest() {
    let collector = Collector::start();
    collector.behave(Manners { refuse: Some(Code::InvalidArgument), ..Manners::default() });
    let (oap, drops) = start(settings(collector.endpoint()));
    let worker = sample::worker("demo", 9);
    oap.send(Report::Meters(sample::meters(&worker, 5000)));
    collector.wait("call", SOON, |received| received.calls.len() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(drops.snapshot().get(Reason::SendFailed), 1);
    collector.behave(Manners::default());
    oap.send(Report::Meters(sample::meters(&worker, 6000)));
    collector.wait("meters", SOON, |received| received.meters().count() == 1).await;
    oap.stop(SOON).await;
}

#[tokio::test]
async fn an_unreachable_collector_neither_blocks_nor_grows() {
    let mut collector = Collector::start();
    collector.stop();
    let (oap, drops) = start(Settings { queue_size: 100, ..settings(collector.endpoint()) });
    let worker = sample::worker("demo", 9);
    let asked = Instant::now();
    for n in 0..1000 {
        oap.send(Report::Segment(sample::segment(&worker, &n.to_string(), 1000)));
    }
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(drops.snapshot().get(Reason::QueueFull), 900);
    // The newest are what is kept, in order.
    collector.restart();
    let received = collector.wait("segments", SOON, |received| received.segments().count() == 100).await;
    let ids: Vec<_> = received.segments().map(|segment| segment.trace_segment_id.clone()).collect();
    assert_eq!(ids, (900..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(oap.stop(SOON).await, 0);
}

#[tokio::test]
async fn stop_keeps_its_bound_and_counts_what_is_left() {
    let collector = Collector::start();
    collector.behave(Manners { delay: Duration::from_secs(60), ..Manners::default() });
    let call_timeout = Duration::from_secs(30);
    let (oap, drops) = start(Settings { call_timeout, ..settings(collector.endpoint()) });
    let worker = sample::worker("demo", 9);
    oap.send(Report::Segment(sample::segment(&worker, "a", 1000)));
    oap.send(Report::Meters(sample::meters(&worker, 5000)));
    let asked = Instant::now();
    assert_eq!(oap.stop(Duration::from_millis(300)).await, 2);
    assert!(asked.elapsed() < Duration::from_millis(600));
    assert_eq!(drops.snapshot().get(Reason::SendFailed), 2);

    let mut gone = collector;
    gone.stop();
    let (oap, _) = start(settings(gone.endpoint()));
    oap.send(Report::Segment(sample::segment(&worker, "a", 1000)));
    let asked = Instant::now();
    assert_eq!(oap.stop(Duration::from_secs(20)).await, 1);
    assert!(asked.elapsed() < Duration::from_secs(2), "nobody there: no reason to wait");
}

#[tokio::test]
async fn a_silent_collector_is_left_and_a_batch_is_not_sent_twice() {
    let collector = Collector::start();
    collector.behave(Manners { delay: Duration::from_secs(2), ..Manners::default() });
    let call_timeout = Duration::from_millis(300);
    let (oap, drops) = start(Settings { call_timeout, ..settings(collector.endpoint()) });
    let worker = sample::worker("demo", 9);
    oap.send(Report::Meters(sample::meters(&worker, 5000)));
    collector.wait("call", SOON, |received| received.calls.len() == 1).await;
    tokio::time::sleep(call_timeout * 2).await;
    assert_eq!(drops.snapshot().get(Reason::SendFailed), 1);
    collector.behave(Manners::default());
    oap.send(Report::Meters(sample::meters(&worker, 6000)));
    collector.wait("meters", SOON, |received| received.meters().count() == 1).await;
    assert_eq!(oap.stop(SOON).await, 0);
}

#[tokio::test]
async fn a_node_full_of_workers_registers_in_seconds() {
    let collector = Collector::start();
    let (oap, drops) = start(settings(collector.endpoint()));
    let asked = Instant::now();
    for pid in 0..1000 {
        oap.send(Report::Hello(sample::worker("demo", pid)));
    }
    let worker = sample::worker("demo", 9);
    for n in 0..10_000 {
        oap.send(Report::Segment(sample::segment(&worker, &n.to_string(), 1000)));
    }
    let all = |received: &Received| received.pings.len() == 1000 && received.segments().count() == 10_000;
    let limit = Duration::from_secs(30);
    collector.wait("thousand registrations and all segments", limit, all).await;
    println!("1000 registrations and 10000 segments in {:.1?}", asked.elapsed());
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn an_event_starts_then_ends_under_one_uuid_after_its_instance_was_registered() {
    let collector = Collector::start();
    let (oap, drops) = start(settings(collector.endpoint()));
    // More than the reporter registers in one turn.
    for pid in 100..150 {
        oap.send(Report::Hello(sample::worker("demo", pid)));
    }
    let worker = sample::worker("demo", 9);
    oap.send(Report::Hello(worker.clone()));
    for (n, event) in (1..).zip(sample::exit(&worker, "u", 1000)) {
        oap.send(Report::Event(event));
        collector.wait("an event", SOON, |received| received.events().count() == n).await;
    }
    let received = collector.received();
    let last = received.calls.iter().rposition(|call| *call == "keepAlive");
    let first = received.calls.iter().position(|call| *call == "EventService.collect");
    assert!(last < first && received.pings.len() == 51, "{:?}", received.calls);
    let expected = v3::Event {
        uuid: "u".to_owned(),
        source: Some(v3::Source {
            service: "demo".to_owned(),
            service_instance: worker.name.to_string(),
            endpoint: String::new(),
        }),
        name: "Exit".to_owned(),
        r#type: v3::Type::Normal.into(),
        message: "asked to end".to_owned(),
        parameters: [("cause", "shutdown"), ("pid", "9")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        start_time: 1000,
        end_time: 0,
        layer: "GENERAL".to_owned(),
    };
    let events: Vec<_> = received.events().collect();
    assert_eq!(*events[0], expected);
    assert_eq!((events[1].uuid.as_str(), events[1].r#type()), ("u", v3::Type::Error));
    assert_eq!((events[1].start_time, events[1].end_time), (1000, 3000));
    assert_eq!(events[1].parameters["cause"], "graceful-timeout");
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn events_survive_an_outage_in_their_order() {
    let mut collector = Collector::start();
    let (oap, drops) = start(settings(collector.endpoint()));
    let worker = sample::worker("demo", 9);
    oap.send(Report::Hello(worker.clone()));
    collector.wait("registration", SOON, |received| received.pings.len() == 1).await;
    collector.stop();
    for n in 0..3 {
        for event in sample::exit(&worker, &n.to_string(), 1000) {
            oap.send(Report::Event(event));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    // Overloaded at first when it is back.
    collector.behave(Manners { refuse: Some(Code::ResourceExhausted), ..Manners::default() });
    collector.restart();
    tokio::time::sleep(Duration::from_millis(300)).await;
    collector.forget();
    collector.behave(Manners::default());
    let received = collector.wait("events", SOON, |received| received.events().count() == 3).await;
    assert_eq!(received.calls[0], "reportInstanceProperties", "OAP may have forgotten whom they are about");
    let order: Vec<_> = received.events().map(|event| (event.uuid.as_str(), event.end_time)).collect();
    assert_eq!(order, [("0", 3000), ("1", 3000), ("2", 3000)], "the end says all");
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn an_event_without_an_answer_is_sent_again() {
    let collector = Collector::start();
    collector.behave(Manners { delay: Duration::from_secs(2), ..Manners::default() });
    let call_timeout = Duration::from_millis(300);
    let (oap, drops) = start(Settings { call_timeout, ..settings(collector.endpoint()) });
    let [event, _] = sample::exit(&sample::worker("demo", 9), "u", 1000);
    oap.send(Report::Event(event));
    collector.wait("call", SOON, |received| received.calls.len() == 1).await;
    tokio::time::sleep(call_timeout * 2).await;
    collector.behave(Manners::default());
    collector.wait("event", SOON, |received| received.events().count() >= 1).await;
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(drops.snapshot().named().count(), 0);
}

#[tokio::test]
async fn a_rejected_event_takes_no_other_with_it() {
    let mut collector = Collector::start();
    collector.stop();
    let (oap, drops) = start(settings(collector.endpoint()));
    let worker = sample::worker("demo", 9);
    for uuid in ["a", "bad", "b", "c"] {
        let [event, _] = sample::exit(&worker, uuid, 1000);
        oap.send(Report::Event(event));
    }
    collector.behave(Manners { unwanted_event: Some("bad".to_owned()), ..Manners::default() });
    collector.restart();
    let last = |received: &Received| received.events().any(|event| event.uuid == "c");
    let received = collector.wait("the last", SOON, last).await;
    let uuids: Vec<Vec<_>> = received
        .event_streams
        .iter()
        .map(|stream| stream.iter().map(|event| event.uuid.as_str()).collect())
        .collect();
    assert_eq!(
        uuids,
        [vec!["a"], vec!["a"], vec![], vec!["b"], vec!["c"]],
        "first together, then one by one"
    );
    // It goes on.
    for event in sample::exit(&worker, "d", 1000) {
        oap.send(Report::Event(event));
    }
    assert_eq!(oap.stop(SOON).await, 0);
    assert_eq!(collector.received().events().filter(|event| event.uuid == "d").count(), 1);
    assert_eq!(drops.snapshot().get(Reason::SendFailed), 1);
    assert_eq!(drops.snapshot().named().count(), 1);
}

#[tokio::test]
async fn events_have_a_bound_and_what_does_not_fit_or_is_left_is_counted() {
    let mut collector = Collector::start();
    collector.stop();
    let (oap, drops) = start(Settings { queue_size: 10, ..settings(collector.endpoint()) });
    let worker = sample::worker("demo", 9);
    let send = |uuid: u32| {
        let [event, _] = sample::exit(&worker, &uuid.to_string(), 1000);
        oap.send(Report::Event(event));
    };
    (0..30).for_each(send);
    assert_eq!(drops.snapshot().get(Reason::QueueFull), 20);
    collector.restart();
    let received = collector.wait("events", SOON, |received| received.events().count() == 10).await;
    let uuids: Vec<_> = received.events().map(|event| event.uuid.clone()).collect();
    assert_eq!(uuids, (20..30).map(|n| n.to_string()).collect::<Vec<_>>());
    collector.stop();
    (0..3).for_each(send);
    assert_eq!(oap.stop(SOON).await, 3);
    assert_eq!(drops.snapshot().get(Reason::SendFailed), 3);
}
