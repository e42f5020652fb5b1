# What one does here every day; `just` lists it.
set positional-arguments

_list:
    @{{ just_executable() }} --list --unsorted

# Run everything in one process from a debug build, on a throw-away data folder
dev *arguments:
    cargo run -- up --data-dir target/dev "$@"

# Check format and lints, and run all tests
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets --features failpoints -- -D warnings
    scripts/test

# Run the tests, all or those whose names hold the given words
test *filter:
    scripts/test "$@"

# Ask the program more than 20,000 requests that schemathesis derives from the OpenAPI document
derived:
    NUCLEUS_SCHEMATHESIS_EXAMPLES=400 scripts/test schemathesis

# Kill processes under 200 integrations on Pub/Sub, let the broker be away for a minute, and let 10,000
# syncs be due at once
many:
    NUCLEUS_CHAOS=200 NUCLEUS_AWAY=60 NUCLEUS_DUE=10000 scripts/test queue::

# Let two processes refresh 500 times, 64 tasks at once
refreshes:
    NUCLEUS_REFRESHES=500 scripts/test sixty_four_tasks

# Hold every connector to the contract with an account of 5,000 items, killed again and again
contract:
    NUCLEUS_CONTRACT_ITEMS=5000 scripts/test connector_contract

# Let 100 accounts at GitHub live through everything at once
lives:
    NUCLEUS_LIVES=100 scripts/test github::chaos

# End 1,000 connections at once
disconnections:
    NUCLEUS_DISCONNECTIONS=1000 scripts/test all_of_a_service

# Let 2,000 clients hang up in the middle of a request
hang-ups:
    NUCLEUS_HANG_UPS=2000 scripts/test hang_up

# Kill an import of 100,000 messages, a gigabyte, five times
imports:
    NUCLEUS_IMPORT_MESSAGES=100000 scripts/test a_large_import_that_is_killed

# Run everything in one process
up *arguments:
    cargo run --release -- up "$@"

# Sync a generated mailbox, start to end, with nothing to set up
demo *arguments:
    cargo run --release -- demo "$@"

# Check what the dependencies are and how they are licensed
deny:
    cargo deny check bans licenses sources

# Write openapi.json anew from the code
openapi:
    cargo run --quiet -- openapi > target/openapi.json
    mv target/openapi.json openapi.json

# Record the examples of the document anew, and write it with them
examples:
    NUCLEUS_WRITE_EXAMPLES=1 scripts/test the_examples_are_what_the_program_answers
    cargo run --quiet -- openapi > target/openapi.json
    mv target/openapi.json openapi.json

# Measure
bench *arguments:
    cargo bench --locked "$@"

# Read every mail below a folder and write docs/email-corpus.md: what became of them, by origin
corpus-report folder:
    cargo run --quiet --release -p email --example corpus-report -- "$1" > target/email-corpus.md
    mv target/email-corpus.md docs/email-corpus.md

# Measure email beside Python's and npm's libraries, on generated mail and on the folders given
peers *folders:
    email/peers/measure "$@"

# Measure how fast mail is understood, and how time grows with HTML made to cost much
bench-email:
    cargo bench --locked --package email --features promises --bench html

# Feed the parser what a fuzzer makes up, for so many seconds: `message` or `html` (needs cargo-fuzz)
fuzz target="message" seconds="600":
    mkdir -p fuzz/corpus/message
    cp --update email/fixtures/*.eml fuzz/corpus/message/
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{ target }} -- -max_total_time={{ seconds }} -max_len=16384 -timeout=10 -dict=fuzz/html.dict
