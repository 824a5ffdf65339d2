//! How long the pipeline takes for the requests of a tape: from the bytes of the ring to the bytes for OAP.

use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use harness::recorded::Recorded;

fn tapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("requests");
    for name in ["sync", "gthread", "uvicorn"] {
        let recorded = Recorded::golden(name);
        let mut playing = recorded.play();
        group.throughput(Throughput::Elements(playing.again().segments as u64));
        group.bench_function(name, |bencher| bencher.iter(|| playing.again()));
    }
    group.finish();
}

criterion_group!(benches, tapes);
criterion_main!(benches);
