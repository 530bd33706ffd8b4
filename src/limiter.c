/*-------------------------------------------------------------------------
 *
 * limiter.c
 *	  The request budget: at most so many requests in any 10 seconds.
 *
 * The tenant counts requests of a client over all its processes, so the
 * library, when preloaded, counts in shared memory; otherwise each process
 * counts its own, which is documented.  The moments of the last requests are
 * kept in a ring: the next one may leave when the one "rate_limit" before it
 * is 10 seconds old.  That is exact for every window, where a token bucket
 * would let twice the budget through around a full bucket.
 *
 * Anybody with USAGE on the wrapper can write down a client_id, a rate_limit of
 * 1 and a token_url of his own, so a client_id alone opens nobody else's
 * budget.  A caller is in the client's budget once the token endpoint granted a
 * token to exactly his credential (of a client_secret_file: to who has that
 * path): budgets remember a keyed hash of the credentials to which that happened,
 * so that new processes need not ask.  Until then, and after a refusal, he is in
 * one that his role and server have for themselves, where he can use up,
 * throttle and block nobody but himself.
 *
 * What is remembered is worth little by itself, since who knows a secret that
 * the tenant takes no more could see to it that it never gets an answer: it
 * holds for an hour, and for so many requests for a token that nothing came of.
 * And it moves no limit: that takes a token in hand.
 *
 * The client's budget is named by the client and by who vouches for it, the URL
 * of the token endpoint: one that grants tokens to everybody vouches for
 * nothing at another.  A static token is its own client, and proven once the
 * tenant accepted a call with it.
 *
 * A token endpoint that answers 429 is blocked by itself, in an entry of the
 * same table that counts no requests.
 *
 * Shared memory holds values alone; times are microseconds of the monotonic
 * clock, which is one for all processes and does not jump.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "accessreq.h"
#include "common/hashfn.h"
#include "datatype/timestamp.h"
#include "limiter.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

/* The tenant's window. */
#define WINDOW_US (10 * USECS_PER_SEC)

/*
 * What a request may take longer on its way than the one before it, so that
 * the tenant does not see them closer together than they left.
 */
#define WINDOW_SLACK_US (50 * INT64CONST(1000))

/* The largest rate_limit (see tenant.c). */
#define RING_SIZE 1000

/*
 * The vendor's longest Retry-After.  What asks for more ends up in front of one
 * job, in sync_job.retry_after, and not of everybody.
 */
#define MAX_BLOCK_US (1200 * USECS_PER_SEC)

/* How long a smaller limit of another server with the same key stands. */
#define LIMIT_MEMORY_US (60 * USECS_PER_SEC)

/* Credentials of a client that are good at a time: one, and two amid a rotation. */
#define MAX_PROOFS 4

/* How long a grant is remembered, and for how many requests without another. */
#define PROOF_LIFE_US (60 * 60 * USECS_PER_SEC)
#define PROOF_TRIES 8

/*
 * A role that has this part of the budgets makes place for more among its own,
 * where there is no other place: one credential is good for many endpoints.
 */
#define QUOTA_PART 8

/* The log says that budgets are forgotten once in so long. */
#define EVICTION_LOG_US (60 * USECS_PER_SEC)

/* That a token was granted to a credential. */
typedef struct Proof
{
	uint64		credential;		/* hashed; 0: none */
	int64		granted_at;
	int			tries;			/* for another, since then */
} Proof;

typedef struct Budget
{
	LimiterKey	key;
	int64		last_used;		/* 0: free */
	int64		blocked_until;
	int64		limit_seen;		/* when "limit" was last asked for */
	int			limit;			/* the smallest of those who share it */
	int			next;			/* where the next moment goes */
	Proof		proofs[MAX_PROOFS];
	Oid			maker_database; /* whose request made it */
	Oid			maker;
	LimiterInfo info;			/* whose it is */
	int64		sent[RING_SIZE];
} Budget;

typedef struct LimiterState
{
	LWLock	   *lock;			/* in shared memory too; NULL when local */
	uint64		seed;			/* for hashing */
	int64		eviction_logged;
	int			nbudgets;
	Budget		budgets[FLEXIBLE_ARRAY_MEMBER];
} LimiterState;

/* The caller of a tenant: the budgets that may be his, and what tells which is. */
typedef struct Caller
{
	LimiterKey	client;			/* the one of the client */
	LimiterKey	own;			/* the one of the role and the server */
	LimiterKey	vouched;		/* the client's for calls, which has the proofs */
	uint64		proof;			/* of the credential */
	uint64		name;			/* of a budget that is made for him */
	LimiterInfo info;
} Caller;

static LimiterState *state = NULL;
static bool shared = false;

/* ------------------------------------------------------------------- memory */

static void
init_state(LimiterState *s, LWLock *lock)
{
	if (!pg_strong_random(&s->seed, sizeof(s->seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random hash key")));
	s->nbudgets = accessreq_max_budgets;
	s->lock = lock;
}

Size
limiter_shmem_size(void)
{
	return add_size(offsetof(LimiterState, budgets),
					mul_size(sizeof(Budget), accessreq_max_budgets));
}

void
limiter_shmem_init(LWLock *lock)
{
	bool		found;

	state = ShmemInitStruct("accessreq limiter", limiter_shmem_size(), &found);
	if (!found)
	{
		memset(state, 0, limiter_shmem_size());
		init_state(state, lock);
	}
	shared = true;
}

bool
limiter_is_shared(void)
{
	return shared;
}

static void
ensure_state(void)
{
	LimiterState *local;

	if (state != NULL)
		return;
	/* calloc: pages of budgets that are never used are never touched */
	local = calloc(1, limiter_shmem_size());
	if (local == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	init_state(local, NULL);
	state = local;
}

static void
lock_state(void)
{
	ensure_state();
	if (state->lock != NULL)
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
}

static void
unlock_state(void)
{
	if (state->lock != NULL)
		LWLockRelease(state->lock);
}

/* --------------------------------------------------------------------- keys */

static int64
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

/* A text and its length, so that two of them cannot be cut elsewhere. */
static uint64
mix(uint64 h, const char *text)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text) + 1, h);
}

static LimiterKey
make_key(const char *kind, const char *endpoint, const char *who, const char *where)
{
	LimiterKey	key;

	key.a = mix(mix(state->seed, kind), endpoint);
	key.b = mix(mix(key.a, who), where);
	return key;
}

/* What the limit of one API version is counted by; another has its own. */
static LimiterKey
client_key(const Tenant *t, const char *kind, const char *endpoint)
{
	if (t->credential == CREDENTIAL_TOKEN)
		return make_key(kind, endpoint, t->secret, "static");
	return make_key(kind, endpoint, t->client_id, t->token_endpoint);
}

/* A keyed hash of exactly this credential, and never 0, which is none. */
static uint64
credential_proof(const Tenant *t)
{
	uint64		h = mix(state->seed + t->credential, t->token_endpoint);

	return mix(mix(h, t->client_id ? t->client_id : ""), t->secret) | 1;
}

/* Describe who calls a tenant's API, or asks its token endpoint. */
static void
describe_caller(Caller *c, const Tenant *t, bool of_token)
{
	const char *api = tenant_api_names[t->api];
	const char *kind = of_token ? "token" : api;
	const char *endpoint = of_token ? t->token_endpoint : t->endpoint;
	char		own[64];

	ensure_state();
	memset(c, 0, sizeof(Caller));
	snprintf(own, sizeof(own), "%u/%u/%u", MyDatabaseId, t->serverid, t->userid);
	c->own = make_key(kind, endpoint, own, "own");
	c->client = client_key(t, kind, endpoint);
	c->vouched = client_key(t, api, t->endpoint);
	c->proof = credential_proof(t);
	if (!pg_strong_random(&c->name, sizeof(c->name)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	c->info.of_token = of_token;
	c->info.database = MyDatabaseId;
	c->info.serverid = t->serverid;
	c->info.userid = t->userid;
	c->info.api = t->api;
	strlcpy(c->info.endpoint, endpoint, LIMITER_ENDPOINT_LEN);
	if (t->client_id != NULL)
	{
		/* databases of other encodings read it, and it may be cut */
		strlcpy(c->info.client_id, t->client_id, LIMITER_CLIENT_LEN);
		for (char *p = c->info.client_id; *p; p++)
		{
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		}
		strlcpy(c->info.token_endpoint, t->token_endpoint, LIMITER_ENDPOINT_LEN);
	}
}

/* ------------------------------------------------------------------ budgets */

static bool
same_key(LimiterKey x, LimiterKey y)
{
	return x.a == y.a && x.b == y.b;
}

/* A budget that is there, or NULL. */
static Budget *
look(LimiterKey key)
{
	for (int i = 0; i < state->nbudgets; i++)
	{
		Budget	   *b = &state->budgets[i];

		if (b->last_used != 0 && same_key(b->key, key))
			return b;
	}
	return NULL;
}

/* The moment "n" requests ago, 0 where there were fewer. */
static int64
sent_before(const Budget *b, int n)
{
	return b->sent[(b->next - n + RING_SIZE) % RING_SIZE];
}

static Proof *
find_proof(Budget *b, uint64 credential)
{
	for (int i = 0; b != NULL && i < MAX_PROOFS; i++)
	{
		if (b->proofs[i].credential == credential)
			return &b->proofs[i];
	}
	return NULL;
}

static bool
holds(const Proof *proof, int64 now)
{
	return proof != NULL && proof->credential != 0 && proof->tries < PROOF_TRIES &&
		now - proof->granted_at < PROOF_LIFE_US;
}

static bool
has_proofs(const Budget *b, int64 now)
{
	for (int i = 0; i < MAX_PROOFS; i++)
	{
		if (holds(&b->proofs[i], now))
			return true;
	}
	return false;
}

/*
 * What is lost with a budget, least first.  What strangers can make as many of
 * as they like, of a token that only they know too, comes before what somebody
 * has proven.
 */
static int
worth(const Budget *b, int64 now)
{
	bool		idle = b->blocked_until <= now && sent_before(b, 1) <= now - WINDOW_US;

	if (b->last_used == 0)
		return 0;
	if (idle && !has_proofs(b, now))
		return 1;
	if (!b->info.shared || b->info.client_id[0] == '\0')
		return 2;
	return idle ? 3 : b->blocked_until > now ? 5 : 4;
}

#define WORTH_NOTHING 1

static bool
is_by(const Budget *b, const LimiterInfo *info)
{
	return b->last_used != 0 && b->maker_database == info->database && b->maker == info->userid;
}

/* The budget that is worth least and was not used for longest; of one maker's, or all. */
static Budget *
least_of(const LimiterInfo *maker, int64 now)
{
	Budget	   *least = NULL;

	for (int i = 0; i < state->nbudgets; i++)
	{
		Budget	   *b = &state->budgets[i];
		int			difference;

		if (maker != NULL && !is_by(b, maker))
			continue;
		difference = least ? worth(b, now) - worth(least, now) : -1;
		if (difference < 0 || (difference == 0 && b->last_used < least->last_used))
			least = b;
	}
	return least;
}

/* A place for a budget; *lost: what was there was worth something. */
static Budget *
make_place(const LimiterInfo *info, int64 now, bool *lost)
{
	Budget	   *b = least_of(NULL, now);
	int			own = 0;

	if (worth(b, now) <= WORTH_NOTHING)
		return b;
	*lost = true;
	for (int i = 0; i < state->nbudgets; i++)
		own += is_by(&state->budgets[i], info);
	return own > state->nbudgets / QUOTA_PART ? least_of(info, now) : b;
}

/* The budget of a key, made where there is none. */
static Budget *
find_or_make(LimiterKey key, const LimiterInfo *info, uint64 name, int64 now, bool *lost)
{
	Budget	   *b = look(key);

	if (b == NULL)
	{
		b = make_place(info, now, lost);
		memset(b, 0, sizeof(Budget));
		b->key = key;
		b->maker_database = info->database;
		b->maker = info->userid;
		b->info.name = name;
	}
	else
		name = b->info.name;
	b->last_used = now;
	b->info = *info;
	b->info.name = name;
	return b;
}

/* In the place of the oldest, where it was not known. */
static void
note_proof(Budget *b, uint64 credential, int64 now)
{
	Proof	   *proof = find_proof(b, credential);

	for (int i = 0; proof == NULL && i < MAX_PROOFS; i++)
	{
		if (b->proofs[i].credential == 0)
			proof = &b->proofs[i];
	}
	if (proof == NULL)
	{
		proof = &b->proofs[0];
		for (int i = 1; i < MAX_PROOFS; i++)
		{
			if (b->proofs[i].granted_at < proof->granted_at)
				proof = &b->proofs[i];
		}
	}
	proof->credential = credential;
	proof->granted_at = now;
	proof->tries = 0;
}

static bool
is_proven(const Caller *c, int64 now)
{
	return holds(find_proof(look(c->vouched), c->proof), now);
}

/*
 * Find or make the budget in which a caller is: that of the client, where he is
 * proven.
 */
static Budget *
budget_of(Caller *c, bool proven, int64 now, bool *lost)
{
	c->info.shared = proven;
	return find_or_make(proven ? c->client : c->own, &c->info, c->name, now, lost);
}

/* The one where he is, if it is there. */
static Budget *
look_for(const Caller *c, int64 now)
{
	return look(is_proven(c, now) ? c->client : c->own);
}

/*
 * Say in the log that a budget was forgotten, where that was not just said.
 * The state is locked; unlocks it.
 */
static void
unlock_and_tell(bool lost, int64 now)
{
	bool		tell = lost && (state->eviction_logged == 0 ||
								now - state->eviction_logged > EVICTION_LOG_US);
	int			n = state->nbudgets;

	if (tell)
		state->eviction_logged = now;
	unlock_state();
	if (tell)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("a request budget was forgotten to make room for another: all %d are in use", n),
				 errdetail("Whoever shared it may send more than the tenant allows, for 10 seconds or for as long as the tenant said."),
				 errhint("Raise accessreq.max_budgets, which takes a restart; accessreq.request_budget shows who has them."),
				 errhidestmt(true)));
}

/*
 * Servers that share a key share the smallest limit, while they are used; who
 * holds no token has not used it yet.
 */
static int
effective_limit(Budget *b, int rate_limit, bool granted, int64 now)
{
	bool		stands = b->limit > 0 && now - b->limit_seen <= LIMIT_MEMORY_US;

	if (rate_limit <= 0)
		return 0;
	rate_limit = Min(rate_limit, RING_SIZE);
	if (granted && (!stands || rate_limit <= b->limit))
	{
		b->limit = rate_limit;
		b->limit_seen = now;
		return rate_limit;
	}
	return stands ? Min(b->limit, rate_limit) : rate_limit;
}

/* The limit that stands, without asking for one; 0: none. */
static int
standing_limit(const Budget *b, int64 now)
{
	return now - b->limit_seen <= LIMIT_MEMORY_US ? b->limit : 0;
}

static void
count_request(Budget *b, int64 now)
{
	b->sent[b->next] = now;
	b->next = (b->next + 1) % RING_SIZE;
}

static int
count_used(const Budget *b, int64 now, int most)
{
	int			used = 0;

	while (used < most && sent_before(b, used + 1) > now - WINDOW_US)
		used++;
	return used;
}

LimiterKey
limiter_key(const Tenant *tenant)
{
	int64		now = now_us();
	Caller		c;
	LimiterKey	key;

	describe_caller(&c, tenant, false);
	lock_state();
	key = is_proven(&c, now) ? c.client : c.own;
	unlock_state();
	return key;
}

/* ---------------------------------------------------------------- who is who */

void
limiter_granted(const Tenant *tenant, LimiterKey charged)
{
	int64		now = now_us();
	bool		lost = false;
	Caller		c;
	Budget	   *b;

	describe_caller(&c, tenant, false);
	lock_state();
	b = budget_of(&c, true, now, &lost);
	note_proof(b, c.proof, now);
	if (!same_key(charged, c.client))
		count_request(b, now);
	unlock_and_tell(lost, now);
}

void
limiter_refused(const Tenant *tenant)
{
	Caller		c;
	Proof	   *proof;

	describe_caller(&c, tenant, false);
	lock_state();
	proof = find_proof(look(c.vouched), c.proof);
	if (proof != NULL)
		memset(proof, 0, sizeof(Proof));
	unlock_state();
}

/* ------------------------------------------------------------------- requests */

/* A request for a token, by who was granted one before: one more without another. */
static void
note_try(const Caller *c)
{
	Proof	   *proof = find_proof(look(c->vouched), c->proof);

	if (proof != NULL)
		proof->tries++;
}

/* Of a limit of one nothing can be left to others. */
int64
limiter_take(const Tenant *tenant, int leave, bool granted, LimiterKey *charged)
{
	int64		now = now_us();
	int64		wait = 0;
	bool		lost = false;
	Caller		c;
	Budget	   *b;
	int			limit;

	describe_caller(&c, tenant, false);
	lock_state();
	b = budget_of(&c, granted || is_proven(&c, now), now, &lost);
	if (granted)
		note_proof(b, c.proof, now);
	*charged = b->key;
	limit = effective_limit(b, tenant->rate_limit,
							granted || tenant->credential == CREDENTIAL_TOKEN || !c.info.shared, now);
	if (limit > 0)
		limit = Max(limit - leave, 1);
	if (b->blocked_until > now)
		wait = b->blocked_until - now;
	else if (limit > 0 && sent_before(b, limit) != 0)
		wait = Max(sent_before(b, limit) + WINDOW_US + WINDOW_SLACK_US - now, 0);
	if (wait == 0)
	{
		count_request(b, now);
		if (!granted && tenant->credential != CREDENTIAL_TOKEN)
			note_try(&c);
	}
	unlock_and_tell(lost, now);
	return wait;
}

/* Of the last moments it does not matter whose they are. */
void
limiter_give_back(LimiterKey charged, int n)
{
	Budget	   *b;

	lock_state();
	b = look(charged);
	for (int i = 0; b != NULL && i < n; i++)
	{
		b->next = (b->next - 1 + RING_SIZE) % RING_SIZE;
		b->sent[b->next] = 0;
	}
	unlock_state();
}

static void
block(const Tenant *tenant, int64 microseconds, bool of_token)
{
	int64		now = now_us();
	bool		lost = false;
	Caller		c;
	Budget	   *b;

	describe_caller(&c, tenant, of_token);
	lock_state();
	b = budget_of(&c, is_proven(&c, now), now, &lost);
	b->blocked_until = Max(b->blocked_until, now + Min(microseconds, MAX_BLOCK_US));
	unlock_and_tell(lost, now);
}

static int64
blocked(const Tenant *tenant, bool of_token)
{
	int64		now = now_us();
	int64		left = 0;
	Caller		c;
	Budget	   *b;

	describe_caller(&c, tenant, of_token);
	lock_state();
	b = look_for(&c, now);
	if (b != NULL)
		left = Max(b->blocked_until - now, 0);
	unlock_state();
	return left;
}

void
limiter_block(const Tenant *tenant, int64 microseconds)
{
	block(tenant, microseconds, false);
}

void
limiter_block_token(const Tenant *tenant, int64 microseconds)
{
	block(tenant, microseconds, true);
}

int64
limiter_blocked(const Tenant *tenant)
{
	return blocked(tenant, false);
}

int64
limiter_token_blocked(const Tenant *tenant)
{
	return blocked(tenant, true);
}

int
limiter_left(const Tenant *tenant)
{
	int64		now = now_us();
	int			limit = tenant->rate_limit;
	int			used = 0;
	Caller		c;
	Budget	   *b;

	describe_caller(&c, tenant, false);
	lock_state();
	b = look_for(&c, now);
	if (b != NULL && limit > 0)
	{
		/* only looking: another server's smaller limit stays as it is */
		if (standing_limit(b, now) > 0)
			limit = Min(b->limit, limit);
		used = count_used(b, now, limit);
	}
	unlock_state();
	return limit > 0 ? limit - used : -1;
}

/* ------------------------------------------------------------- for the view */

LimiterInfo *
limiter_list(int *n)
{
	int64		now = now_us();
	LimiterInfo *list;

	ensure_state();
	list = palloc(sizeof(LimiterInfo) * state->nbudgets);
	*n = 0;
	lock_state();
	for (int i = 0; i < state->nbudgets; i++)
	{
		const Budget *b = &state->budgets[i];
		LimiterInfo *info = &list[*n];

		if (b->last_used == 0)
			continue;
		*info = b->info;
		info->limit = standing_limit(b, now);
		info->used = count_used(b, now, RING_SIZE);
		info->blocked_us = Max(b->blocked_until - now, 0);
		(*n)++;
	}
	unlock_state();
	return list;
}

bool
limiter_clear(uint64 name)
{
	bool		found = false;

	lock_state();
	for (int i = 0; i < state->nbudgets; i++)
	{
		Budget	   *b = &state->budgets[i];

		if (b->last_used == 0 || b->info.name != name)
			continue;
		found = true;
		b->blocked_until = 0;
		b->limit = 0;
		b->next = 0;
		memset(b->sent, 0, sizeof(b->sent));
	}
	unlock_state();
	return found;
}
