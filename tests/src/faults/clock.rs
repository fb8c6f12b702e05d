//! A clock that is ahead: a library that goes before the C library's `clock_gettime`, for one process.

use std::time::Duration;

use tokio::process::Command;

use crate::stack::Stack;

const SOURCE: &str = r#"
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

/// Builds the library, and gives the path for `LD_PRELOAD`. Only the time of day is ahead, not the monotonic clock: just
/// as on a machine whose clock is set wrong.
pub async fn ahead(stack: &Stack, by: Duration) -> String {
    let source = stack.file("clock.c", SOURCE);
    let library = stack.folder().join("clock.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", &format!("-DAHEAD={}", by.as_secs()), "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .await
        .expect("there is a C compiler: Rust needs one to link");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library.to_str().expect("a path of ours").to_owned()
}
