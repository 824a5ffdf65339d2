//! Conversations on connections, by chance.
use super::*;
use proptest::prelude::*;

/// A request and its response: heads, and how long the bodies are.
#[derive(Clone, Debug)]
struct Talk {
    request: Vec<u8>,
    response: Vec<u8>,
}

fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let plain = |bytes: Vec<u8>| (format!("Content-Length: {}\r\n", bytes.len()), bytes);
    let chunked = |chunks: Vec<Vec<u8>>| {
        let mut body = Vec::new();
        for chunk in chunks {
            body.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(&chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
        ("Transfer-Encoding: chunked\r\n".to_owned(), body)
    };
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60).prop_map(plain),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..4).prop_map(chunked),
    ]
}

fn talk() -> impl Strategy<Value = Talk> {
    ("/[a-z]{0,9}", body(), body(), 200u16..600, any::<bool>()).prop_map(
        |(target, ask, answer, status, interim)| {
            let join = |head: String, body: Vec<u8>| [head.into_bytes(), body].concat();
            let bare = matches!(status, 204 | 304);
            let interim = if interim { "HTTP/1.1 100 Continue\r\n\r\n" } else { "" };
            Talk {
                request: join(format!("POST {target} HTTP/1.1\r\n{}\r\n", ask.0), ask.1),
                response: join(
                    format!("{interim}HTTP/1.1 {status} X\r\n{}\r\n", answer.0),
                    if bare { Vec::new() } else { answer.1 },
                ),
            }
        },
    )
}

/// Feeds both sides cut at `cuts`, requests first, and gives what does not depend on the cuts.
fn told(talks: &[Talk], cuts: &[prop::sample::Index]) -> Vec<(String, Option<u16>, u64, u64)> {
    let mut bench = Bench::accepted();
    for out in [false, true] {
        let side = |talk: &Talk| if out { talk.response.clone() } else { talk.request.clone() };
        let bytes: Vec<u8> = talks.iter().flat_map(side).collect();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        for pair in at.windows(2) {
            bench.moved(out, WORKER, &bytes[pair[0]..pair[1]], 0);
        }
    }
    assert_eq!(bench.drops(), NONE);
    let facts = |e: Exchange| (e.target.into(), e.status, e.request_bytes, e.response_bytes);
    bench.found.exchanges.into_iter().map(facts).collect()
}

/// Messages with bodies of known length, of which only so many bytes of each op are copied.
fn told_with_holes(lengths: &[(u16, u16)], copied: usize) -> Vec<(Option<u16>, u64, u64)> {
    let mut bench = Bench::accepted();
    for (ask, answer) in lengths {
        let heads = [
            format!("POST / HTTP/1.1\r\nContent-Length: {ask}\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n"),
        ];
        for (out, head, len) in [(false, &heads[0], *ask), (true, &heads[1], *answer)] {
            let copied = copied.min(usize::from(len));
            let bytes = [head.as_bytes(), &vec![b'x'; copied]].concat();
            let first = u32::from(len / 2).max(u32::try_from(copied).unwrap());
            bench.moved(out, WORKER, &bytes, first - u32::try_from(copied).unwrap());
            bench.moved(out, WORKER, b"", u32::from(len) - first);
        }
    }
    assert_eq!(bench.drops(), NONE);
    bench.found.exchanges.iter().map(|e| (e.status, e.request_bytes, e.response_bytes)).collect()
}

/// A client that asks `batch` at a time, in one write; every request's status is its own. `fates` says what becomes of each
/// record: 0 is lost, 1 is copied in part, the rest is whole.
fn told_with_losses(batches: &[usize], fates: &[u8]) -> Bench {
    let mut bench = Bench::accepted();
    let mut fates = fates.iter().copied();
    let mut tell = |bench: &mut Bench, out: bool, bytes: &str| match fates.next() {
        Some(0) => bench.lose(out, bytes.len() as u64),
        Some(1) => {
            let (copied, rest) = bytes.split_at(bytes.len() / 2);
            bench.moved(out, WORKER, copied.as_bytes(), u32::try_from(rest.len()).unwrap());
        }
        _ => bench.moved(out, WORKER, bytes.as_bytes(), 0),
    };
    let mut status = 200..600;
    for batch in batches {
        let batch: Vec<u16> =
            status.by_ref().filter(|status| *status != 204 && *status != 304).take(*batch).collect();
        let asked: Vec<String> = batch.iter().map(|status| get(&format!("/{status}"))).collect();
        tell(&mut bench, false, &asked.concat());
        for status in batch {
            tell(&mut bench, true, &format!("HTTP/1.1 {status} X\r\nContent-Length: 6\r\n\r\n"));
            tell(&mut bench, true, "abc");
            tell(&mut bench, true, "def");
        }
    }
    bench.close();
    bench
}

/// Every status that was told belongs to the request that it was told of.
fn pairs_are_true(bench: &Bench) -> bool {
    bench.found.exchanges.iter().all(|e| e.status.is_none_or(|status| e.target == format!("/{status}")))
}

proptest! {
    #[test]
    fn losses_never_make_a_false_pair(
        asks in 1..20usize,
        fates in prop::collection::vec(0u8..12, 0..80),
    ) {
        prop_assert!(pairs_are_true(&told_with_losses(&vec![1; asks], &fates)));
    }

    #[test]
    fn losses_in_a_pipeline_never_make_a_false_pair(
        batches in prop::collection::vec(2..5usize, 1..6),
        fates in prop::collection::vec(0u8..12, 0..80),
    ) {
        prop_assert!(pairs_are_true(&told_with_losses(&batches, &fates)));
    }

    #[test]
    fn any_cut_of_a_pipelined_conversation_gives_the_same_exchanges(
        talks in prop::collection::vec(talk(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole = told(&talks, &[]);
        prop_assert_eq!(whole.len(), talks.len());
        for (talk, exchange) in talks.iter().zip(&whole) {
            prop_assert_eq!(exchange.2, talk.request.len() as u64);
            prop_assert_eq!(exchange.3, talk.response.len() as u64);
        }
        prop_assert_eq!(told(&talks, &cuts), whole);
    }

    #[test]
    fn holes_in_bodies_change_nothing(lengths in prop::collection::vec(any::<(u16, u16)>(), 1..5), copied in 0usize..300) {
        prop_assert_eq!(told_with_holes(&lengths, copied), told_with_holes(&lengths, usize::MAX));
    }

    #[test]
    fn nothing_makes_a_connection_panic(ops in prop::collection::vec(
        (any::<bool>(), 0..12usize, prop::collection::vec(any::<u8>(), 0..6), 0u32..9, 0u64..3), 0..40,
    ), accepted in any::<bool>()) {
        let words = [
            "GET / HTTP/1.1\r\n\r\n", OK, STREAMED, "3\r\nabc\r\n", "0\r\n\r\n", "\r\n", "HTTP/1.1 100 C\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "H", "",
        ];
        let mut bench = if accepted { Bench::accepted() } else { Bench::new() };
        for (out, word, noise, hole, lost) in ops {
            bench.lose(out, lost.saturating_sub(1));
            let bytes = [words[word].as_bytes(), if noise.len() > 3 { &noise } else { &[] }].concat();
            bench.moved(out, WORKER, &bytes, hole.saturating_sub(6));
        }
        bench.close();
        prop_assert_eq!(bench.found.drops.get(Reason::ParserPanic), 0);
        prop_assert!(bench.found.exchanges.iter().all(|e| e.end >= e.start));
    }
}
