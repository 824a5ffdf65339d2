//! A real nginx in front of a gunicorn, with a configuration of its own.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::Address;
use crate::gunicorn::Gunicorn;
use crate::gunicorn::kill;
use crate::scrape::free;
use crate::stage::Stage;
use crate::stage::must;
use crate::stage::tool;
use crate::stage::wait;

/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it asks the gunicorn behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// As it does unless told otherwise: HTTP/1.0, a connection for each request.
    Plain,
    /// HTTP/1.1 over connections that are kept.
    Kept,
}

/// A running nginx; it ends when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    dir: PathBuf,
}

impl Nginx {
    /// Starts one in front of a gunicorn, and waits until it listens.
    pub fn start(stage: &Stage, gunicorn: &Gunicorn, upstream: Upstream) -> Self {
        let (dir, address) = (stage.folder("nginx"), free());
        let server = match gunicorn.address() {
            Address::Unix(path) | Address::TlsUnix(path, _) => format!("unix:{}", path.display()),
            Address::Tcp(address) | Address::Tls(address, _) => address.to_string(),
        };
        let kept = match upstream {
            Upstream::Plain => "",
            Upstream::Kept => "proxy_http_version 1.1; proxy_set_header Connection \"\";",
        };
        let configuration = dir.join("nginx.conf");
        let text = format!(
            "user root; daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;
            events {{ worker_connections 512; }}
            http {{
                access_log off; client_body_temp_path body; proxy_temp_path proxy;
                fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                keepalive_requests 1000000; large_client_header_buffers 8 16k;
                upstream gunicorn {{ server {server}; keepalive 16; keepalive_requests 1000000; }}
                server {{
                    listen {address};
                    location / {{ proxy_pass http://gunicorn; proxy_set_header Host $http_host; {kept} }}
                }}
            }}"
        );
        must(fs::write(&configuration, text), "write nginx's configuration");
        let log = must(File::create(dir.join("log")), "make nginx's log");
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(&dir).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = must(command.spawn(), format_args!("start {command:?}"));
        let nginx = Self { child, address, dir };
        let listens = wait(PATIENCE, || TcpStream::connect(address).ok());
        assert!(listens.is_some(), "nginx does not listen on {address}:\n{}", nginx.log());
        nginx
    }

    /// Where it serves.
    pub fn address(&self) -> Address {
        Address::Tcp(self.address)
    }

    /// What it complained about.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        kill(self.child.id(), Signal::TERM); // its workers end with it
        if wait(PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
