# Everything needed to try Leadmill and to work on it. `make` alone lists it.
#
# The commands that need PostgreSQL and RabbitMQ find or start them (deploy/local-stack.sh); set DATABASE_URL and AMQP_URL
# to choose.

SHELL := bash
DEMO_FLAGS ?=
UP_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo up test faults mutations upgrade soak buffers lint sqlx-prepare smtp-sink stack clean-stack

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole way from profile to captured mail, with simulated leads (DEMO_FLAGS=--exit ends by itself)
	@deploy/with-stack.sh cargo run --release --locked --bin leadmill -- demo $(DEMO_FLAGS)

up: ## all services in one process, until Ctrl-C
	@deploy/with-stack.sh bash -c 'cargo build --release --locked --bin leadmill \
	  && cargo run --release --locked --quiet --bin leadmill -- migrate \
	  && exec cargo run --release --locked --quiet --bin leadmill -- up $(UP_FLAGS)'

test: ## every check and every test, as CI runs them (TEST_FLAGS='-p store' for some tests)
	@deploy/test.sh

faults: ## the fault scenarios in their long form, and their table; takes long
	@LEADMILL_FAULTS=full TEST_FLAGS='--workspace --test faults -- --test-threads=2' deploy/test.sh build tests

mutations: ## takes safeguards away, and sees whether the fault scenarios notice; takes long
	@deploy/mutations.sh

upgrade: ## migrates the previous release's database while its mailers run, then replaces its processes; builds that release
	@previous=$$(deploy/previous-release.sh) && TEST_PREVIOUS_RELEASE=$$previous TEST_FLAGS='--workspace --test faults -- upgrade --nocapture' \
	  deploy/test.sh build tests

soak: ## random faults for MINUTES=20, from SEED=1; prints the table, and the seed to repeat it
	@deploy/soak.sh $(or $(MINUTES),20) $(or $(SEED),1)

buffers: ## what a claim, a settlement and an unsubscribe read among 10,000 and among 1,000,000 mails
	@LEADMILL_BUFFERS=full deploy/with-stack.sh cargo test --locked --workspace --test postgres -- what_a_mail_costs

lint: ## format, migrations, clippy, rustdoc, licences: what needs no servers
	@deploy/test.sh format migrations patches lint docs licences

sqlx-prepare: ## crates/store/.sqlx/ anew, after a change of queries or migrations
	@deploy/sqlx-prepare.sh

smtp-sink: ## a real SMTP server on the loopback that keeps every mail under .stack/mail/
	@deploy/smtp-sink.sh --dir .stack/mail

stack: ## finds or starts PostgreSQL and RabbitMQ and says where: eval "$(make stack)"
	@deploy/local-stack.sh up

clean-stack: ## stops the private servers and removes their data
	@deploy/local-stack.sh clean
