# accessreq: PGXS build. "make", "make install", "make installcheck".

EXTENSION = accessreq
MODULE_big = accessreq
DATA = accessreq--1.0.sql
PGFILEDESC = "accessreq - SailPoint access requests in SQL"

OBJS = \
	src/accessreq.o \
	src/acted.o \
	src/action.o \
	src/answer.o \
	src/api.o \
	src/apierror.o \
	src/budgets.o \
	src/call.o \
	src/check.o \
	src/config.o \
	src/control.o \
	src/dates.o \
	src/dbsetting.o \
	src/deliveries.o \
	src/delivery.o \
	src/filter.o \
	src/footing.o \
	src/functions.o \
	src/get.o \
	src/guard.o \
	src/http.o \
	src/identity.o \
	src/idset.o \
	src/inquiry.o \
	src/item.o \
	src/job.o \
	src/json.o \
	src/jsonbtext.o \
	src/launcher.o \
	src/life.o \
	src/limiter.o \
	src/listing.o \
	src/lockwatch.o \
	src/loop.o \
	src/lookup.o \
	src/mark.o \
	src/merge.o \
	src/mode.o \
	src/names.o \
	src/page.o \
	src/person.o \
	src/pull.o \
	src/pulls.o \
	src/quarantine.o \
	src/queue.o \
	src/redact.o \
	src/report.o \
	src/requests.o \
	src/row.o \
	src/rowset.o \
	src/seek.o \
	src/sender.o \
	src/session.o \
	src/sql.o \
	src/statement.o \
	src/status.o \
	src/store.o \
	src/stored.o \
	src/sync.o \
	src/tables.o \
	src/tenant.o \
	src/token.o \
	src/unit.o \
	src/url.o \
	src/utility.o \
	src/work.o \
	src/worker.o \
	src/verdict.o \
	src/version.o \
	src/workers.o \
	src/writer.o

PKG_CONFIG ?= pkg-config
PG_CPPFLAGS = -I$(CURDIR)/src $(shell $(PKG_CONFIG) --cflags libcurl libcjson)
# PostgreSQL's own headers and the callbacks of both libraries have arguments
# that not all of them use, and compare signed with unsigned
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare
# our symbols are ours: PostgreSQL 15 loads modules with RTLD_GLOBAL
SHLIB_LINK = -Wl,-Bsymbolic $(shell $(PKG_CONFIG) --libs libcurl libcjson)

# These want a server with accessreq preloaded and a sandbox tenant, whose URL
# is in ACCESSREQ_SANDBOX_URL: script/test starts both.
REGRESS = setup options calls limits status apis errors privileges names sync plans
REGRESS_OPTS = --inputdir=. --load-extension=accessreq
ISOLATION = pull drop queue
ISOLATION_OPTS = --inputdir=test --load-extension=accessreq
# specs cannot read the environment, as the sql files do
isolation-check installcheck: export PGOPTIONS += -c accessreq_test.sandbox=$(ACCESSREQ_SANDBOX_URL)
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl
# what the TAP files are run with: their modules, the sandbox, the unit tests
installcheck: export PERL5LIB := $(CURDIR)/test/perl:$(PERL5LIB)
installcheck: export ACCESSREQ_SANDBOX = $(CURDIR)/test/sandbox/accessreq-sandbox

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# What the tests run besides.
.PHONY: test-programs
installcheck: test-programs
test-programs:
	$(MAKE) -C test/sandbox
	$(MAKE) -C test/unit

# One suite at a time, for script/test.
.PHONY: regress-check isolation-check
regress-check:
	$(pg_regress_installcheck) $(REGRESS_OPTS) $(REGRESS)
isolation-check:
	$(if $(ISOLATION),$(pg_isolation_regress_installcheck) $(ISOLATION_OPTS) $(ISOLATION))

# The suites' names, for script/test-valgrind.
.PHONY: print-regress
print-regress:
	@echo $(REGRESS)

# PGXS knows of no dependencies on headers
$(OBJS): $(wildcard src/*.h)
