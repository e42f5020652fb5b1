//! Any bytes as a raw message: every promise of the record holds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &[u8]| {
    email::promises::check(raw, "fuzzed message");
});
