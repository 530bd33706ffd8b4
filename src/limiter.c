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
 * Shared memory holds values alone; times are microseconds of the monotonic
 * clock, which is one for all processes and does not jump.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "common/hashfn.h"
#include "datatype/timestamp.h"
#include "limiter.h"
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

/* Budgets at a time: clients times API versions; the least used one yields. */
#define MAX_BUDGETS 64

/* The largest rate_limit (see tenant.c). */
#define RING_SIZE 1000

#define MAX_BLOCK_US USECS_PER_DAY

/* How long a smaller limit of another server with the same key stands. */
#define LIMIT_MEMORY_US (60 * USECS_PER_SEC)

typedef struct Budget
{
	LimiterKey	key;
	int64		last_used;		/* 0: free */
	int64		blocked_until;
	int64		limit_seen;		/* when "limit" was last asked for */
	int			limit;			/* the smallest of those who share it */
	int			next;			/* where the next moment goes */
	int64		sent[RING_SIZE];
} Budget;

typedef struct LimiterState
{
	LWLock	   *lock;			/* in shared memory too; NULL when local */
	uint64		seed;			/* for hashing static tokens */
	Budget		budgets[MAX_BUDGETS];
} LimiterState;

static LimiterState *state = NULL;
static bool shared = false;

/* ------------------------------------------------------------------- memory */

static void
init_seed(LimiterState *s)
{
	if (!pg_strong_random(&s->seed, sizeof(s->seed)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random hash key")));
}

Size
limiter_shmem_size(void)
{
	return sizeof(LimiterState);
}

void
limiter_shmem_init(LWLock *lock)
{
	bool		found;

	state = ShmemInitStruct("accessreq limiter", sizeof(LimiterState), &found);
	if (!found)
	{
		memset(state, 0, sizeof(LimiterState));
		init_seed(state);
		state->lock = lock;
	}
	shared = true;
}

bool
limiter_is_shared(void)
{
	return shared;
}

static void
lock_state(void)
{
	if (state == NULL)
	{
		/* calloc: pages of budgets that are never used are never touched */
		LimiterState *local = calloc(1, sizeof(LimiterState));

		if (local == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
		init_seed(local);
		state = local;
	}
	if (state->lock != NULL)
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
}

static void
unlock_state(void)
{
	if (state->lock != NULL)
		LWLockRelease(state->lock);
}

/* ------------------------------------------------------------------ budgets */

static int64
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

LimiterKey
limiter_key(const Tenant *tenant)
{
	const char *endpoint = tenant->endpoint;
	const char *who = tenant->client_id ? tenant->client_id : tenant->secret;
	const char *api = tenant_api_names[tenant->api];
	LimiterKey	key;
	uint64		seed;

	lock_state();
	seed = state->seed;
	unlock_state();
	key.a = hash_bytes_extended((const unsigned char *) endpoint, strlen(endpoint), seed);
	key.a = hash_bytes_extended((const unsigned char *) api, strlen(api), key.a);
	key.b = hash_bytes_extended((const unsigned char *) who, strlen(who), key.a);
	return key;
}

/* The budget of a key; makes one in the place of the least recently used. */
static Budget *
find_budget(LimiterKey key, int64 now)
{
	Budget	   *oldest = &state->budgets[0];

	for (int i = 0; i < MAX_BUDGETS; i++)
	{
		Budget	   *b = &state->budgets[i];

		if (b->last_used != 0 && b->key.a == key.a && b->key.b == key.b)
		{
			b->last_used = now;
			return b;
		}
		/* one that a tenant told to stay away is the last to be forgotten */
		if ((b->blocked_until > now) == (oldest->blocked_until > now) ?
			b->last_used < oldest->last_used : oldest->blocked_until > now)
			oldest = b;
	}
	memset(oldest, 0, sizeof(Budget));
	oldest->key = key;
	oldest->last_used = now;
	return oldest;
}

/* Servers that share a key share the smallest limit, while they are used. */
static int
effective_limit(Budget *b, int rate_limit, int64 now)
{
	if (rate_limit <= 0)
		return 0;
	if (b->limit == 0 || rate_limit <= b->limit || now - b->limit_seen > LIMIT_MEMORY_US)
	{
		b->limit = Min(rate_limit, RING_SIZE);
		b->limit_seen = now;
	}
	return b->limit;
}

/* The moment "n" requests ago, 0 where there were fewer. */
static int64
sent_before(const Budget *b, int n)
{
	return b->sent[(b->next - n + RING_SIZE) % RING_SIZE];
}

/* Of a limit of one nothing can be left to others. */
int64
limiter_take(LimiterKey key, int rate_limit, int leave)
{
	Budget	   *b;
	int64		now = now_us();
	int64		wait = 0;
	int			limit;

	lock_state();
	b = find_budget(key, now);
	limit = effective_limit(b, rate_limit, now);
	if (limit > 0)
		limit = Max(limit - leave, 1);
	if (b->blocked_until > now)
		wait = b->blocked_until - now;
	else if (limit > 0 && sent_before(b, limit) != 0)
		wait = Max(sent_before(b, limit) + WINDOW_US + WINDOW_SLACK_US - now, 0);
	if (wait == 0)
	{
		b->sent[b->next] = now;
		b->next = (b->next + 1) % RING_SIZE;
	}
	unlock_state();
	return wait;
}

/* Of the last moments it does not matter whose they are. */
void
limiter_give_back(LimiterKey key, int n)
{
	Budget	   *b;

	lock_state();
	b = find_budget(key, now_us());
	for (int i = 0; i < n; i++)
	{
		b->next = (b->next - 1 + RING_SIZE) % RING_SIZE;
		b->sent[b->next] = 0;
	}
	unlock_state();
}

void
limiter_block(LimiterKey key, int64 microseconds)
{
	int64		now = now_us();
	Budget	   *b;

	lock_state();
	b = find_budget(key, now);
	b->blocked_until = Max(b->blocked_until, now + Min(microseconds, MAX_BLOCK_US));
	unlock_state();
}

int64
limiter_blocked(LimiterKey key)
{
	int64		now = now_us();
	int64		left;

	lock_state();
	left = Max(find_budget(key, now)->blocked_until - now, 0);
	unlock_state();
	return left;
}

int
limiter_left(LimiterKey key, int rate_limit)
{
	int64		now = now_us();
	Budget	   *b;
	int			limit,
				used = 0;

	lock_state();
	b = find_budget(key, now);
	/* only looking: another server's smaller limit stays as it is */
	limit = rate_limit > 0 && b->limit > 0 ? Min(b->limit, rate_limit) : rate_limit;
	while (used < limit && sent_before(b, used + 1) > now - WINDOW_US)
		used++;
	unlock_state();
	return limit > 0 ? limit - used : -1;
}
