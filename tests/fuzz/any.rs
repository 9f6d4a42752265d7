//! Runs the target that `HARDTACK_FUZZ_TARGET` names under libFuzzer.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<String> = LazyLock::new(|| {
    std::env::var("HARDTACK_FUZZ_TARGET").expect("HARDTACK_FUZZ_TARGET names a target")
});

fuzz_target!(|input: &[u8]| hardtack::fuzzing::run(&TARGET, input));
