// Finding entries by name, in tables that a stranger may have made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace floatllm {

// Names and places of entries, sorted. Not a hash table: a file can hold a hundred thousand names of one
// hash, and then every search walks through all of them.
class NameIndex {
  public:
    // The names must stay where they are for as long as this is used.
    void reserve(size_t count) { entries_.reserve(count); }
    void add(std::string_view name) { entries_.emplace_back(name, static_cast<uint32_t>(entries_.size())); }
    // To be called once, after the last add(). Returns the place of an entry whose name an earlier one has,
    // or -1.
    int64_t sort() {
        std::sort(entries_.begin(), entries_.end());
        const auto twice =
            std::adjacent_find(entries_.begin(), entries_.end(),
                               [](const Entry &a, const Entry &b) { return a.first == b.first; });
        return twice == entries_.end() ? -1 : int64_t{(twice + 1)->second};
    }
    // Place of the entry of this name, or -1.
    int64_t find(std::string_view name) const {
        const auto found = std::lower_bound(entries_.begin(), entries_.end(), name,
                                            [](const Entry &a, std::string_view b) { return a.first < b; });
        return found == entries_.end() || found->first != name ? -1 : int64_t{found->second};
    }
    uint64_t heap_bytes() const { return entries_.capacity() * sizeof(Entry); }

  private:
    using Entry = std::pair<std::string_view, uint32_t>;
    std::vector<Entry> entries_;
};

}  // namespace floatllm
