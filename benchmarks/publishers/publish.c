/* Publishes persistent, mandatory messages with confirms as fast as librabbitmq goes.
 *
 *   publish HOST PORT USER VHOST EXCHANGE ROUTING_KEY COUNT WARM_UP WINDOW PRIORITY CONTENT_TYPE
 *
 * The password is in PASSWORD. Standard input is the size of the encoded header table (4 bytes, big
 * endian), the table, and the body. Each message has an id of its own, written into its properties
 * and into the places of the table where the first id stood (ID). Prints the seconds from the first
 * publish to the last confirm, those of the warm-up apart, the processor's within them, of this
 * process and of RabbitMQ (RABBITMQ_PID, 0 where it cannot be seen), and the library's version.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1, ID_BYTES = 36, PLACES = 8, INPUT_BYTES = 1 << 20 };

static void fail(const char *what) {
  fprintf(stderr, "publish: %s\n", what);
  exit(1);
}

static void expect(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double seconds_of(clockid_t clock) {
  struct timespec time = {0, 0};
  clock_gettime(clock, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

typedef struct {
  double wall, client, broker;
} Seconds;

/* A process that cannot be seen takes no time. */
static Seconds now(clockid_t broker) {
  return (Seconds){.client = seconds_of(CLOCK_PROCESS_CPUTIME_ID),
                   .broker = broker ? seconds_of(broker) : 0,
                   .wall = seconds_of(CLOCK_MONOTONIC)};
}

typedef struct {
  amqp_connection_state_t connection;
  char *confirmed;          /* by delivery tag */
  uint64_t tag, oldest, open;
} Publisher;

static void settle(Publisher *it, uint64_t tag) {
  if (tag > it->tag) fail("a confirm of what was never published");
  if (!it->confirmed[tag]) {
    it->confirmed[tag] = 1;
    it->open--;
  }
}

/* Waits for one frame and deals with it; only confirms may come. */
static void read_confirm(Publisher *it) {
  amqp_frame_t frame;
  if (amqp_simple_wait_frame(it->connection, &frame) != AMQP_STATUS_OK) fail("connection lost");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
    fail("something else than a basic.ack came");
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  if (ack->multiple) {
    while (it->oldest <= ack->delivery_tag) settle(it, it->oldest++);
  } else {
    settle(it, ack->delivery_tag);
  }
}

static size_t places_of(amqp_bytes_t table, const char *id, char **places) {
  size_t found = 0;
  for (size_t at = 0; at + ID_BYTES <= table.len && found < PLACES; at++)
    if (!memcmp((char *)table.bytes + at, id, ID_BYTES)) places[found++] = (char *)table.bytes + at;
  return found;
}

int main(int argc, char **argv) {
  if (argc != 12) fail("wrong number of arguments");
  const char *password = getenv("PASSWORD");
  const char *id = getenv("ID");
  if (!password || !id || strlen(id) != ID_BYTES) fail("PASSWORD or ID is missing");
  uint64_t count = strtoull(argv[7], NULL, 10), warm_up = strtoull(argv[8], NULL, 10);
  uint64_t window = strtoull(argv[9], NULL, 10);
  const char *rabbitmq = getenv("RABBITMQ_PID");
  clockid_t broker = 0;
  if (rabbitmq && atoi(rabbitmq) && clock_getcpuclockid(atoi(rabbitmq), &broker)) broker = 0;

  static unsigned char input[INPUT_BYTES];
  size_t size = fread(input, 1, sizeof input, stdin);
  if (size < 4) fail("no message on standard input");
  size_t table_bytes = (size_t)input[0] << 24 | input[1] << 16 | input[2] << 8 | input[3];
  if (table_bytes + 4 > size) fail("the header table is cut");
  amqp_bytes_t table = {.len = 4 + table_bytes, .bytes = input};
  amqp_bytes_t body = {.len = size - 4 - table_bytes, .bytes = input + 4 + table_bytes};
  char *places[PLACES];
  size_t place_count = places_of(table, id, places);

  amqp_pool_t pool;
  init_amqp_pool(&pool, 4096);
  amqp_table_t headers;
  size_t offset = 0;
  if (amqp_decode_table(table, &pool, &headers, &offset) != AMQP_STATUS_OK) fail("bad headers");

  Publisher it = {.connection = amqp_new_connection(), .oldest = 1};
  it.confirmed = calloc(count + warm_up + 1, 1);
  amqp_socket_t *socket = amqp_tcp_socket_new(it.connection);
  if (!socket || amqp_socket_open(socket, argv[1], atoi(argv[2]))) fail("cannot connect");
  expect(amqp_login(it.connection, argv[4], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[3], password),
         "cannot log in");
  amqp_channel_open(it.connection, CHANNEL);
  expect(amqp_get_rpc_reply(it.connection), "cannot open a channel");
  amqp_confirm_select(it.connection, CHANNEL);
  expect(amqp_get_rpc_reply(it.connection), "no confirms");

  char own_id[ID_BYTES + 5]; /* room for more digits than any count has */
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG |
                AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                AMQP_BASIC_PRIORITY_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG |
                AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG,
      .content_type = amqp_cstring_bytes(argv[11]),
      .content_encoding = amqp_cstring_bytes("utf-8"),
      .headers = headers,
      .delivery_mode = 2,
      .priority = (uint8_t)atoi(argv[10]),
      .correlation_id = {.len = ID_BYTES, .bytes = own_id},
      .message_id = {.len = ID_BYTES, .bytes = own_id},
      .timestamp = (uint64_t)time(NULL)};
  amqp_bytes_t exchange = amqp_cstring_bytes(argv[5]), key = amqp_cstring_bytes(argv[6]);

  Seconds began = now(broker);
  for (uint64_t number = 0; number < count + warm_up; number++) {
    if (number == warm_up) {
      while (it.open) read_confirm(&it);
      began = now(broker);
    }
    snprintf(own_id, sizeof own_id, "00000000-0000-4000-8000-%012llx", (unsigned long long)number);
    for (size_t at = 0; at < place_count; at++) memcpy(places[at], own_id, ID_BYTES);
    if (amqp_basic_publish(it.connection, CHANNEL, exchange, key, 1, 0, &properties, body))
      fail("cannot publish");
    it.tag++;
    it.open++;
    while (it.open >= window) read_confirm(&it);
  }
  while (it.open) read_confirm(&it);
  Seconds ended = now(broker);
  printf("{\"seconds\": %.6f, \"client_s\": %.6f, ", ended.wall - began.wall,
         ended.client - began.client);
  if (broker) printf("\"broker_s\": %.6f, ", ended.broker - began.broker);
  printf("\"version\": \"%s\"}\n", amqp_version());
  amqp_connection_close(it.connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(it.connection);
  return 0;
}
