/*-------------------------------------------------------------------------
 *
 * acted.c
 *	  Access requests that sessions have just created, cancelled or closed, so
 *	  that the next cycle of a pull reads them first.
 *
 * The tenant carries such a call out a moment later, so a request is read in
 * every cycle of the minute that follows, and not only in one.  What is lost
 * here is not lost: the other steps of a cycle find it as well, only not first.
 * That is why a ring in memory will do: a call is not undone where its
 * transaction is, and a table would be.
 *
 * Values alone.  Without preload each process has a ring of its own, of which
 * a CALL sync in the same session still has some use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "acted.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

/* The largest single call names 500 requests; the oldest yield. */
#define RING_SIZE 1024

/* The tenant's ids have 32 or 36 characters; longer ones are not noted. */
#define ID_SIZE 64

#define RECENT_US (60 * USECS_PER_SEC)

typedef struct ActedEntry
{
	Oid			database;
	Oid			serverid;
	TimestampTz at;
	char		id[ID_SIZE];
} ActedEntry;

typedef struct ActedRing
{
	slock_t		lock;
	int			next;
	ActedEntry	entries[RING_SIZE];
} ActedRing;

static ActedRing *ring = NULL;

Size
acted_shmem_size(void)
{
	return sizeof(ActedRing);
}

void
acted_shmem_init(void)
{
	bool		found;

	ring = ShmemInitStruct("accessreq acted", sizeof(ActedRing), &found);
	if (!found)
	{
		memset(ring, 0, sizeof(ActedRing));
		SpinLockInit(&ring->lock);
	}
}

static bool
have_ring(void)
{
	if (ring != NULL)
		return true;
	ring = calloc(1, sizeof(ActedRing));
	if (ring == NULL)
		return false;
	SpinLockInit(&ring->lock);
	return true;
}

/* A few instructions, so that the spinlock is held for no longer. */
static void
put(const ActedEntry *entry)
{
	SpinLockAcquire(&ring->lock);
	ring->entries[ring->next] = *entry;
	ring->next = (ring->next + 1) % RING_SIZE;
	SpinLockRelease(&ring->lock);
}

void
acted_note(Oid serverid, const char *const *ids, int nids)
{
	ActedEntry	entry = {0};

	if (!have_ring())
		return;
	entry.database = MyDatabaseId;
	entry.serverid = serverid;
	entry.at = GetCurrentTimestamp();
	for (int i = 0; i < nids; i++)
	{
		if (strlen(ids[i]) >= ID_SIZE)
			continue;
		memset(entry.id, 0, ID_SIZE);
		strlcpy(entry.id, ids[i], ID_SIZE);
		put(&entry);
	}
}

IdSet *
acted_recently(Oid serverid, MemoryContext cxt)
{
	IdSet	   *ids = idset_create(cxt, 16);
	TimestampTz since = GetCurrentTimestamp() - RECENT_US;

	if (!have_ring())
		return ids;
	for (int i = 0; i < RING_SIZE; i++)
	{
		ActedEntry	entry;

		SpinLockAcquire(&ring->lock);
		entry = ring->entries[i];
		SpinLockRelease(&ring->lock);
		if (entry.database == MyDatabaseId && entry.serverid == serverid && entry.at >= since)
			(void) idset_add(ids, entry.id, strlen(entry.id));
	}
	return ids;
}
