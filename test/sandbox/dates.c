/*
 * dates.c
 *
 * Microseconds since 1970 to text and back.  The tenant spells its dates in
 * more than one way, and filters compare them, so reading is lenient for what
 * is served and strict for what a client sends.
 */
#include "sandbox.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Days since 1970 of a Gregorian date, and back (civil calendar algorithm). */
static int64_t
days_from_civil(int64_t y, int m, int d)
{
	int64_t		era;
	int64_t		yoe,
				doy,
				doe;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	return era * 146097 + doe - 719468;
}

static void
civil_from_days(int64_t z, int *y, int *m, int *d)
{
	int64_t		era,
				doe,
				yoe,
				doy,
				mp;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = z - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*d = (int) (doy - (153 * mp + 2) / 5 + 1);
	*m = (int) (mp < 10 ? mp + 3 : mp - 9);
	*y = (int) (yoe + era * 400 + (*m <= 2));
}

static char *
put_digits(char *p, int value, int width)
{
	for (int i = width - 1; i >= 0; i--, value /= 10)
		p[i] = (char) ('0' + value % 10);
	return p + width;
}

/* Writes without quotes; out has room for 32. */
static size_t
date_write(char *out, int64_t usecs, DateStyle style)
{
	int64_t		days = usecs / USECS_PER_DAY;
	int64_t		rest = usecs % USECS_PER_DAY;
	int			y,
				m,
				d;
	char	   *p = out;

	if (rest < 0)
		days--, rest += USECS_PER_DAY;
	civil_from_days(days, &y, &m, &d);
	p = put_digits(p, y, 4), *p++ = '-';
	p = put_digits(p, m, 2), *p++ = '-';
	p = put_digits(p, d, 2), *p++ = 'T';
	p = put_digits(p, (int) (rest / (3600 * USECS_PER_SEC)), 2), *p++ = ':';
	p = put_digits(p, (int) (rest / (60 * USECS_PER_SEC) % 60), 2);
	if (style != DATE_NO_SECONDS)
	{
		*p++ = ':';
		p = put_digits(p, (int) (rest / USECS_PER_SEC % 60), 2), *p++ = '.';
		if (style == DATE_US)
			p = put_digits(p, (int) (rest % USECS_PER_SEC), 6);
		else
			p = put_digits(p, (int) (rest % USECS_PER_SEC / 1000), 3);
	}
	if (style != DATE_NO_ZONE)
		*p++ = 'Z';
	*p = '\0';
	return (size_t) (p - out);
}

/* Adds the date as a JSON string, null for NO_TIME. */
void
text_date(Text *t, int64_t usecs, DateStyle style)
{
	char		out[40];
	size_t		len;

	if (usecs == NO_TIME)
	{
		text_add(t, "null", 4);
		return;
	}
	out[0] = '"';
	len = date_write(out + 1, usecs, style);
	out[len + 1] = '"';
	text_add(t, out, len + 2);
}

char *
date_ms(int64_t usecs, char out[32])
{
	date_write(out, usecs, DATE_MS);
	return out;
}

/* The time that is left when a date has been written in that style. */
int64_t
date_round(int64_t usecs, DateStyle style)
{
	int64_t		unit = style == DATE_US ? 1 : style == DATE_NO_SECONDS ? 60 * USECS_PER_SEC : 1000;

	return usecs - usecs % unit;
}

static bool
digits(const char **s, int width, int *value)
{
	*value = 0;
	for (int i = 0; i < width; i++)
	{
		if ((*s)[i] < '0' || (*s)[i] > '9')
			return false;
		*value = *value * 10 + ((*s)[i] - '0');
	}
	*s += width;
	return true;
}

/* Z, +hh:mm, -hhmm or (not when strict) nothing; microseconds east of UTC. */
static bool
parse_zone(const char *s, bool strict, int64_t *east)
{
	int			h,
				m = 0,
				sign;

	*east = 0;
	if (*s == '\0')
		return !strict;
	if (*s == 'Z')
		return s[1] == '\0';
	if (*s != '+' && *s != '-')
		return false;
	sign = *s++ == '+' ? 1 : -1;
	if (!digits(&s, 2, &h))
		return false;
	if (*s == ':')
		s++;
	if (*s && !digits(&s, 2, &m))
		return false;
	*east = sign * (h * 60 + m) * 60 * USECS_PER_SEC;
	return *s == '\0';
}

/*
 * NO_TIME if s is no date.  Strict wants a time of day and a zone; lenient
 * takes UTC where no zone is given.
 */
int64_t
date_parse(const char *s, bool strict)
{
	int			y,
				mo,
				d,
				h = 0,
				mi = 0,
				sec = 0;
	int64_t		usecs = 0,
				unit = 100000,
				east = 0;

	if (s == NULL || !digits(&s, 4, &y) || *s++ != '-' || !digits(&s, 2, &mo) ||
		*s++ != '-' || !digits(&s, 2, &d))
		return NO_TIME;
	if (*s == '\0')
	{
		if (strict)
			return NO_TIME;
	}
	else if ((*s != 'T' && *s != ' ') || (s++, !digits(&s, 2, &h)) || *s++ != ':' ||
			 !digits(&s, 2, &mi))
		return NO_TIME;
	if (*s == ':')
	{
		s++;
		if (!digits(&s, 2, &sec))
			return NO_TIME;
		if (*s == '.')
			for (s++; *s >= '0' && *s <= '9'; s++, unit /= 10)
				usecs += (*s - '0') * unit;
	}
	if (!parse_zone(s, strict, &east))
		return NO_TIME;
	if (mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || sec > 60)
		return NO_TIME;
	return (((days_from_civil(y, mo, d) * 24 + h) * 60 + mi) * 60 + sec) * USECS_PER_SEC +
		usecs - east;
}

char *
date_http(int64_t usecs, char out[32])
{
	time_t		t = (time_t) (usecs / USECS_PER_SEC);
	struct tm	tm;

	gmtime_r(&t, &tm);
	strftime(out, 32, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	return out;
}

int64_t
wall_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

int64_t
steady_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
