// SPDX-License-Identifier: MIT OR Apache-2.0
// CHECK(condition) ends the program with an error that names the line and the condition, if the condition does not hold.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%d: %s does not hold\n", __LINE__, #condition);        \
      std::exit(1);                                                                \
    }                                                                              \
  } while (0)
