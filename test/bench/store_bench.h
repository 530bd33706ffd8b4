/*-------------------------------------------------------------------------
 *
 * store_bench.h
 *	  Which part of storing a page takes how long: marks in store.c that only
 *	  this benchmark's build of it has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ACCESSREQ_STORE_BENCH_H
#define ACCESSREQ_STORE_BENCH_H

typedef enum BenchPart
{
	BENCH_GENERATE,				/* making the page: not counted */
	BENCH_CUT,
	BENCH_HASH,
	BENCH_LOOKUP,
	BENCH_DECODE,
	BENCH_DATUMS,
	BENCH_TABLE,				/* and the three that follow, by table */
	BENCH_TABLE_APPROVAL,
	BENCH_TABLE_PHASE,
	BENCH_TABLE_WORK_ITEM,
	BENCH_REST,
	BENCH_OTHER,
	BENCH_COMMIT,
	BENCH_PARTS
} BenchPart;

/* The CPU time since the last mark belongs to this part. */
extern void bench_part(int part);

#define BENCH_PART(part) bench_part(part)

#endif							/* ACCESSREQ_STORE_BENCH_H */
