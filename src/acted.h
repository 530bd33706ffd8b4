/*-------------------------------------------------------------------------
 *
 * acted.h
 *	  Access requests that sessions have just created, cancelled or closed, so
 *	  that the next cycle of a pull reads them first.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_ACTED_H
#define ACCESSREQ_ACTED_H

#include "idset.h"

/* Note requests of a server of this database; ids are UTF-8. */
extern void acted_note(Oid serverid, const char *const *ids, int nids);

/* Those that were noted in the last minute; the set is made in "cxt". */
extern IdSet *acted_recently(Oid serverid, MemoryContext cxt);

/* Shared memory, when preloaded. */
extern Size acted_shmem_size(void);
extern void acted_shmem_init(void);

#endif							/* ACCESSREQ_ACTED_H */
