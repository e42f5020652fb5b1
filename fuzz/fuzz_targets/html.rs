//! Any text as HTML: what is written is safe, well-formed, and comes out of a second reading unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    email::promises::check_html(source, "fuzzed html");
});
