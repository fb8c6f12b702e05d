//! What processes on this machine have used, from `/proc` (proc(5)): `None` wherever that isn't there or may not be read.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::Path;

/// `/proc` counts time in ticks of this length on every Linux: `USER_HZ` is part of its interface.
const TICKS_PER_SECOND: f64 = 100.0;
/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// What stands in `/proc/PID/stat`.
struct Stat {
    parent: u32,
    /// Seconds of this process alone.
    own: f64,
    /// Seconds of its children that have ended.
    reaped: f64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name and may hold anything, also `)`.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let seconds = |number: usize| -> Option<f64> {
            fields.get(number - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND)
        };
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(14)? + seconds(15)?,
            reaped: seconds(16)? + seconds(17)?,
        })
    }
}

/// Seconds of CPU that a process has used.
pub fn cpu(pid: u32) -> Option<f64> {
    Stat::read(pid).map(|stat| stat.own)
}

/// Seconds of CPU that a process and its children, also those that have ended, have used.
pub fn cpu_of_family(pid: u32) -> Option<f64> {
    let parent = Stat::read(pid)?;
    let children = pids().filter_map(Stat::read).filter(|child| child.parent == pid);
    Some(parent.own + parent.reaped + children.map(|child| child.own + child.reaped).sum::<f64>())
}

/// Seconds of CPU that a process's children have used which have ended and were waited for.
pub fn cpu_of_ended_children(pid: u32) -> Option<f64> {
    Stat::read(pid).map(|stat| stat.reaped)
}

/// The most memory that a process has had in use at once, in MiB.
pub fn peak_memory(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kibibytes| kibibytes / 1024.0)
}

/// The process of this name that listens where `host` and `port` lead to, if that is this machine.
pub fn listener(host: &str, port: u16, name: &str) -> Option<u32> {
    if !is_here(host, port) {
        return None;
    }
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listening_sockets(Path::new(table), port))
        .collect();
    // Children may hold the socket as well; the one that opened it is the oldest.
    pids().filter(|pid| is_called(*pid, name)).filter(|pid| holds(*pid, &sockets)).min()
}

/// Whether a name leads to this machine and nowhere else.
pub fn is_here(host: &str, port: u16) -> bool {
    (host, port).to_socket_addrs().is_ok_and(|found| {
        let found: Vec<_> = found.collect();
        !found.is_empty() && found.iter().all(|address| address.ip().is_loopback())
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim() == name)
}

/// How `/proc/PID/fd` names the sockets that listen on a port.
fn listening_sockets(table: &Path, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let wanted = u16::from_str_radix(local_port, 16) == Ok(port) && fields.get(3) == Some(&LISTENING);
        wanted.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
    };
    text.lines().skip(1).filter_map(socket).collect()
}

fn holds(pid: u32, sockets: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port_and_name() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let me = std::process::id();
        let name = fs::read_to_string(format!("/proc/{me}/comm")).unwrap();
        assert_eq!(listener("127.0.0.1", port, name.trim()), Some(me));
        assert_eq!(listener("127.0.0.1", port, "somebody-else"), None);
        drop(socket);
        assert_eq!(listener("127.0.0.1", port, name.trim()), None);
    }

    #[test]
    fn what_this_process_uses_is_known() {
        let me = std::process::id();
        assert!(peak_memory(me).unwrap() > 1.0);
        // In this order: what is used only grows, also from one line to the next.
        let mine = cpu(me).unwrap();
        assert!(cpu_of_family(me).unwrap() >= mine);
        assert_eq!(cpu(u32::MAX), None);
    }
}
