//! Clocks that are wrong: libraries that go before the C library's functions, for one process and its children.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::process::Command;

use crate::stack::Stack;

/// A clock that is ahead by a fixed time.
const AHEAD: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += AHEAD;
    return result;
}
"#;

/// A clock that is ahead by what the first eight bytes of a file say, at every moment.
const SETTABLE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    static const volatile long *said;
    static const long nothing = 0;
    if (!said) {
        int file = open(OFFSET_FILE, O_RDONLY | O_CLOEXEC);
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        said = page == MAP_FAILED ? &nothing : (const volatile long *)page;
    }
    return *said;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *also) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (also) *also = precise.tv_sec;
    return precise.tv_sec;
}
"#;

/// Builds a library whose clock is ahead, and gives the path for `LD_PRELOAD`. Only the time of day is ahead, not the
/// monotonic clock: just as on a machine whose clock is set wrong.
pub async fn ahead(stack: &Stack, by: Duration) -> String {
    build(stack.folder(), AHEAD, &format!("-DAHEAD={}", by.as_secs())).await
}

/// A clock that is set from outside while processes run by it.
#[derive(Debug)]
pub struct SettableClock {
    offset: File,
    library: String,
    _folder: TempDir,
}

impl SettableClock {
    /// One that is right until it is set.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Servers may run under an account of their own.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
        let path = folder.path().join("offset");
        fs::write(&path, 0_i64.to_ne_bytes()).expect("the folder takes files");
        let offset = File::options().write(true).open(&path).expect("it was just written");
        let path = path.to_str().expect("a path of ours");
        let library = build(folder.path(), SETTABLE, &format!("-DOFFSET_FILE=\"{path}\"")).await;
        Self { offset, library, _folder: folder }
    }

    /// The value of `LD_PRELOAD` for who is to run by it.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// Sets it to `before` the turn of a window of so many seconds since the epoch that no process has seen anything of, nor
    /// of the window before that turn.
    ///
    /// # Panics
    /// When it would go back.
    pub fn set_before_a_turn(&self, window: u64, before: Duration, last: f64) {
        let window = window as f64;
        let turn = ((last / window).floor() + 2.0) * window;
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64();
        let ahead = turn - before.as_secs_f64() - real;
        assert!(real + ahead > last, "a clock of a database never goes back");
        self.offset.write_all_at(&(ahead.round() as i64).to_ne_bytes(), 0).expect("the file takes eight bytes");
    }
}

async fn build(folder: &Path, source: &str, definition: &str) -> String {
    let (code, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&code, source).expect("the folder takes files");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", definition, "-o"])
        .args([&library, &code])
        .arg("-ldl")
        .output()
        .await
        .expect("there is a C compiler: Rust needs one to link");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library.to_str().expect("a path of ours").to_owned()
}
