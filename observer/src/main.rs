//! x
#[tokio::main]
async fn main() {
    let a = std::env::args().nth(1);
    if a.as_deref() == Some("check") {
        for f in observer::kernel::capability::findings() { println!("{f:?}"); }
        match observer::kernel::rehearse() {
            Ok(rows) => for (p, v) in rows { println!("{}:", p.name); for (k, w) in v { println!("   {} {}", k.name(), w.unwrap_or("works".into())); } },
            Err(e) => println!("{e}"),
        }
    }
}
