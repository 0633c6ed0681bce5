//! Addresses of the NBD server as text: where it listens, and the URI by which clients find an export.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use spindle_engine::Address;

/// Where to listen: `unix:PATH` or a path with a slash, `tcp:IP:PORT` or `IP:PORT`, `localhost` for 127.0.0.1.
///
/// # Errors
/// What is wrong with it, and the valid forms.
pub fn parse_address(text: &str) -> Result<Address, String> {
    let path = text.strip_prefix("unix:").or_else(|| text.contains('/').then_some(text));
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let tcp = text.strip_prefix("tcp:").unwrap_or(text);
    let numeric = tcp.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(tcp).parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        format!(
            "'{text}' is not an address; write unix:PATH or IP:PORT, as in 127.0.0.1:10809 or [::1]:10809"
        )
    })
}

/// The URI by which NBD clients find an export at an address, whose connections TLS encrypts or not.
pub fn uri(address: &Address, encrypted: bool, export: &str) -> String {
    let scheme = if encrypted { "nbds" } else { "nbd" };
    match address {
        Address::Unix(path) => {
            let path = escaped(path.as_os_str().as_bytes());
            format!("{scheme}+unix:///{}?socket={path}", escaped(export.as_bytes()))
        }
        Address::Tcp(tcp) => format!("{scheme}://{tcp}/{}", escaped(export.as_bytes())),
    }
}

/// Text with the bytes that are special or invalid in a URI escaped in hex.
fn escaped(bytes: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in bytes {
        match *byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' | b':' => {
                escaped.push(*byte as char);
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn an_address_is_a_path_or_an_ip_and_a_port() {
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        assert_eq!(parse_address("unix:nbd.sock"), unix("nbd.sock"));
        assert_eq!(parse_address("/run/nbd.sock"), unix("/run/nbd.sock"));
        assert_eq!(parse_address("./nbd.sock"), unix("./nbd.sock"));
        let tcp = |text: &str| Ok(Address::Tcp(text.parse().expect("an address")));
        assert_eq!(parse_address("127.0.0.1:10809"), tcp("127.0.0.1:10809"));
        assert_eq!(parse_address("tcp:[::1]:0"), tcp("[::1]:0"));
        assert_eq!(parse_address("localhost:1"), tcp("127.0.0.1:1"));
        for wrong in ["", "unix:", "127.0.0.1", "10809", "example.com:1"] {
            assert!(parse_address(wrong).is_err_and(|what| what.contains("127.0.0.1:10809")), "{wrong}");
        }
    }

    #[test]
    fn a_uri_carries_any_name() {
        let unix = Address::Unix("/run/a b/nbd.sock".into());
        assert_eq!(uri(&unix, false, "demo/vm"), "nbd+unix:///demo/vm?socket=/run/a%20b/nbd.sock");
        let odd = Address::Unix(OsStr::from_bytes(b"/run/\xff'`id`$x").into());
        assert_eq!(uri(&odd, false, "a"), "nbd+unix:///a?socket=/run/%FF%27%60id%60%24x");
        let tcp = Address::Tcp("[::1]:10809".parse().expect("an address"));
        assert_eq!(uri(&tcp, false, "a?b"), "nbd://[::1]:10809/a%3Fb");
        assert_eq!(uri(&tcp, true, "a"), "nbds://[::1]:10809/a");
    }
}
