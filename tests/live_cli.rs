//! The command line as root: what the host or the network refuses.

use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::client::Mode;
use harness::gunicorn::Gunicorn;
use harness::gunicorn::Launch;
use harness::observer::Observer;
use harness::observer::binary;
use harness::stage::Stage;
use harness::stage::must;
use harness::traffic::plain;
use harness::traffic::send_all;
use harness::verdict::Expectation;

#[test]
fn without_root_it_is_77_and_says_what_to_do() {
    // The build's folder may be closed to others.
    let stage = Stage::enter("unprivileged");
    let copy = std::env::temp_dir().join(format!("{}-sw-observe", stage.service()));
    std::fs::copy(binary(), &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy);
    let output =
        command.args(["--target", "gunicorn"]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    std::fs::remove_file(&copy).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{stderr}");
    assert!(stderr.contains("root") || stderr.contains("sudo") || stderr.contains("CAP_"), "{stderr}");
    assert!(stderr.lines().count() < 10 && !stderr.contains("panicked"), "not a sentence: {stderr}");
}

/// Nobody there, somebody who hangs up, somebody who speaks something else.
#[test]
fn without_an_oap_it_goes_on_and_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (name, address) in
        [("refused", closed), ("hangs up", answering(b"")), ("wrong port", answering(b"220 mail\r\n"))]
    {
        let stage = Stage::enter("unreachable");
        let mut observer = Observer::start(&["--oap", &address.to_string()]);
        let gunicorn = Gunicorn::start(&stage, &Launch::new("sync", "wsgi_app:app"));
        observer.wait_instances(&gunicorn.workers());
        let sent = send_all(gunicorn.address(), Mode::New, 2, plain(50));
        observer.wait_requests(&gunicorn, &sent);
        let told = harness::stage::wait(Duration::from_secs(15), || {
            observer.stderr().contains(&address.to_string()).then_some(())
        });
        assert!(told.is_some(), "{name}: no warning names {address}:\n{}", observer.stderr());
        assert!(observer.is_running(), "{name}: it ended:\n{}", observer.stderr());
        let report = observer.stop();
        assert!(report.took < Duration::from_secs(10), "{name}: it took {:?} to stop", report.took);
        assert!(report.stderr.lines().count() < 60, "{name}: it floods its log:\n{}", report.stderr);
        Expectation::new(&gunicorn, &sent).losing(&["queue_full", "send_failed"]).check(&report);
    }
}

/// A server that says one thing to whoever connects, and closes.
fn answering(words: &'static [u8]) -> std::net::SocketAddr {
    let listener = must(TcpListener::bind("127.0.0.1:0"), "listen");
    let address = must(listener.local_addr(), "ask for the port");
    let answer = move |mut client: TcpStream| {
        std::io::Write::write_all(&mut client, words).ok();
    };
    // It ends with the test's process.
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}
