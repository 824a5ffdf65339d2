//! The command line without any privilege: what it refuses, with which sentence and which exit code.

use std::net::TcpListener;
use std::process::Command;
use std::process::Output;

use harness::observer::binary;
use harness::stage::must;

fn run(args: &[&str]) -> Output {
    must(Command::new(binary()).args(args).env_clear().output(), "run sw-observe")
}

#[test]
fn bad_usage_is_64_and_names_what_is_wrong() {
    let cases: [(&[&str], &str); 12] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["--target", "gunicorn", "--attach", "nonsense"], "nonsense"),
        (&["--target", "nothing"], "nothing"),
        (&["--target", "gunicorn", "--oap", "no port"], "no port"),
        (&["--target", "gunicorn", "--oap", "host:99999"], "99999"),
        (&["--target", "gunicorn", "--print=xml"], "xml"),
        (&["--target", "gunicorn", "--ring-size", "many"], "many"),
        (&["--target", "gunicorn", "--log-level", "loud"], "loud"),
        (&["--metrics-listen"], "--metrics-listen"),
        (&["--metrics-listen", "localhost:9105"], "127.0.0.1:9105"),
        (&["--metrics-listen", "127.0.0.1:65536"], "127.0.0.1:65536"),
    ];
    for (args, named) in cases {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {stderr}");
        assert!(stderr.contains(named), "{args:?} is not told what is wrong: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?} prints on stdout");
    }
}

/// Before anything is loaded, so that it needs no privilege.
#[test]
fn a_port_that_is_taken_is_64_and_says_what_to_do() {
    let taken = must(TcpListener::bind("127.0.0.1:0"), "listen");
    let address = must(taken.local_addr(), "have an address").to_string();
    let output = run(&["--metrics-listen", &address]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    for said in ["--metrics-listen", &address, "in use", "choose another"] {
        assert!(stderr.contains(said), "no {said:?} in {stderr}");
    }
    assert!(!stderr.contains("loading probes"), "{stderr}");
}

#[test]
fn help_and_version_are_0_and_on_stdout() {
    let cases: [(&str, &[&str]); 2] = [
        ("--help", &["--target", "--oap", "--print", "--attach", "--metrics-listen", "64", "69", "77"]),
        ("--version", &["sw-observe"]),
    ];
    for (arg, contains) in cases {
        let output = run(&[arg]);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{arg}: {}", String::from_utf8_lossy(&output.stderr));
        for text in contains {
            assert!(stdout.contains(text), "{arg} does not say {text:?}: {stdout}");
        }
    }
}
