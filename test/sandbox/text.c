/*
 * text.c
 *
 * Growable text, reference-counted blobs, JSON strings and the few helpers
 * every other file needs.  Memory that cannot be had ends the program: a
 * sandbox has nothing better to do then.
 */
#include "sandbox.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void *
xmalloc(size_t size)
{
	void	   *p = malloc(size ? size : 1);

	if (p == NULL)
	{
		fputs("accessreq-sandbox: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

void *
xrealloc(void *p, size_t size)
{
	void	   *q = realloc(p, size ? size : 1);

	if (q == NULL)
	{
		fputs("accessreq-sandbox: out of memory\n", stderr);
		exit(1);
	}
	return q;
}

char *
xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *
xstrndup(const char *s, size_t len)
{
	char	   *copy = xmalloc(len + 1);

	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

void
text_add(Text *t, const char *s, size_t len)
{
	if (t->len + len + 1 > t->cap)
	{
		t->cap = (t->len + len + 1) * 2;
		if (t->cap < 256)
			t->cap = 256;
		t->data = xrealloc(t->data, t->cap);
	}
	if (len > 0)
		memcpy(t->data + t->len, s, len);
	t->len += len;
	t->data[t->len] = '\0';
}

void
text_puts(Text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

void
text_printf(Text *t, const char *format,...)
{
	char		small[512];
	va_list		args;
	int			n;

	va_start(args, format);
	n = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (n < (int) sizeof(small))
		text_add(t, small, n > 0 ? (size_t) n : 0);
	else
	{
		char	   *big = xmalloc((size_t) n + 1);

		va_start(args, format);
		vsnprintf(big, (size_t) n + 1, format, args);
		va_end(args);
		text_add(t, big, (size_t) n);
		free(big);
	}
}

/* Reads one UTF-8 character; the input is known to be valid. */
static uint32_t
next_char(const unsigned char **s)
{
	const unsigned char *p = *s;
	uint32_t	c;
	int			more;

	if (p[0] < 0x80)
		c = p[0], more = 0;
	else if (p[0] < 0xe0)
		c = p[0] & 0x1f, more = 1;
	else if (p[0] < 0xf0)
		c = p[0] & 0x0f, more = 2;
	else
		c = p[0] & 0x07, more = 3;
	for (p++; more > 0 && (*p & 0xc0) == 0x80; more--, p++)
		c = (c << 6) | (*p & 0x3f);
	*s = p;
	return c;
}

static void
add_escaped_char(Text *t, uint32_t c)
{
	if (c >= 0x10000)
		text_printf(t, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
					0xdc00 + ((c - 0x10000) & 0x3ff));
	else
		text_printf(t, "\\u%04x", c);
}

/* Adds s as a JSON string, quotes included. */
void
text_json(Text *t, const char *s, JsonStyle style)
{
	const unsigned char *p = (const unsigned char *) s;

	text_add(t, "\"", 1);
	while (*p)
	{
		const unsigned char *start = p;

		if (*p == '"' || *p == '\\')
			text_printf(t, "\\%c", *p++);
		else if (*p == '\n')
			text_add(t, "\\n", 2), p++;
		else if (*p == '\t')
			text_add(t, "\\t", 2), p++;
		else if (*p < 0x20 || (style == JSON_HTML_SAFE && strchr("=<>&'", *p)))
			add_escaped_char(t, *p++);
		else if (*p < 0x80)
		{
			while (*p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\' &&
				   !(style == JSON_HTML_SAFE && strchr("=<>&'", *p)))
				p++;
			text_add(t, (const char *) start, (size_t) (p - start));
		}
		else
		{
			uint32_t	c = next_char(&p);

			if (style == JSON_ASCII)
				add_escaped_char(t, c);
			else
				text_add(t, (const char *) start, (size_t) (p - start));
		}
	}
	text_add(t, "\"", 1);
}

void
text_json_or_null(Text *t, const char *s, JsonStyle style)
{
	if (s == NULL)
		text_add(t, "null", 4);
	else
		text_json(t, s, style);
}

void
text_reset(Text *t)
{
	t->len = 0;
	if (t->data)
		t->data[0] = '\0';
}

void
text_free(Text *t)
{
	free(t->data);
	t->data = NULL;
	t->len = t->cap = 0;
}

Blob *
blob_new(const char *json, size_t len)
{
	Blob	   *b = xmalloc(sizeof(Blob) + len + 1);

	b->refs = 1;
	b->len = (uint32_t) (len + 1);
	b->data[0] = ',';
	memcpy(b->data + 1, json, len);
	return b;
}

Blob *
blob_ref(Blob *b)
{
	b->refs++;
	return b;
}

void
blob_unref(Blob *b)
{
	if (b && --b->refs == 0)
		free(b);
}

/* Parses the whole of s, and nothing may follow; NULL if it is not JSON. */
cJSON *
json_parse(const char *s, size_t len)
{
	const char *end = NULL;
	cJSON	   *json;

	if (s == NULL)
		return NULL;
	json = cJSON_ParseWithLengthOpts(s, len, &end, 0);
	for (; json && end && end < s + len; end++)
	{
		if (!strchr(" \t\r\n", *end) || *end == '\0')
		{
			cJSON_Delete(json);
			return NULL;
		}
	}
	return json;
}

const char *
json_text(const cJSON *object, const char *key)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);

	return cJSON_IsString(v) ? v->valuestring : NULL;
}

bool
json_number(const cJSON *object, const char *key, double *value)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);

	if (!cJSON_IsNumber(v))
		return false;
	*value = v->valuedouble;
	return true;
}

/* splitmix64 */
uint64_t
random_next(uint64_t *state)
{
	uint64_t	z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint32_t
random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t) (((random_next(state) >> 32) * n) >> 32);
}

bool
random_chance(uint64_t *state, uint32_t per_mille)
{
	return random_below(state, 1000) < per_mille;
}

uint64_t
hash_bytes(const char *s, size_t len, uint64_t seed)
{
	uint64_t	h = UINT64_C(0xcbf29ce484222325) ^ seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char) s[i]) * UINT64_C(0x100000001b3);
	return random_next(&h);
}

void
new_id(char out[33])
{
	unsigned char bytes[16];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes))
		memset(bytes, 0x5a, sizeof(bytes));
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void
base64url(Text *out, const char *s, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const unsigned char *p = (const unsigned char *) s;

	for (size_t i = 0; i < len; i += 3)
	{
		size_t		left = len - i;
		uint32_t	v = (uint32_t) p[i] << 16;
		char		four[4];

		if (left > 1)
			v |= (uint32_t) p[i + 1] << 8;
		if (left > 2)
			v |= p[i + 2];
		for (int k = 0; k < 4; k++)
			four[k] = digits[(v >> (18 - 6 * k)) & 63];
		text_add(out, four, left > 2 ? 4 : left + 1);
	}
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes in place; false at a malformed or NUL escape. */
bool
url_decode(char *s, bool plus_is_space)
{
	char	   *out = s;

	for (; *s; s++)
	{
		if (*s == '%')
		{
			int			hi = hex_digit(s[1]);
			int			lo = hi < 0 ? -1 : hex_digit(s[2]);

			if (lo < 0 || (hi == 0 && lo == 0))
				return false;
			*out++ = (char) (hi * 16 + lo);
			s += 2;
		}
		else if (*s == '+' && plus_is_space)
			*out++ = ' ';
		else
			*out++ = *s;
	}
	*out = '\0';
	return true;
}
