# libopenwork, its header, and what CMake and pkg-config need to find them.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

file(STRINGS ${PROJECT_SOURCE_DIR}/../pyproject.toml version REGEX "^version = ")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${version}")

file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/runtime/*.cpp)
add_library(openwork_runtime OBJECT ${sources})
target_compile_definitions(openwork_runtime PRIVATE OPENWORK_VERSION="${version}")
target_include_directories(openwork_runtime PUBLIC ${PROJECT_SOURCE_DIR}/src/runtime ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(openwork_runtime PUBLIC openwork_objects)
set_target_properties(openwork_runtime PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
  VISIBILITY_INLINES_HIDDEN ON)

add_library(openwork SHARED)
target_include_directories(openwork INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(openwork PRIVATE openwork_runtime openwork_objects)
# Before 1.0 a minor version may change the interface.
string(REGEX MATCH "^[0-9]+\\.[0-9]+" soversion "${version}")
set_target_properties(openwork PROPERTIES VERSION ${version} SOVERSION ${soversion} LINKER_LANGUAGE CXX)
if(NOT APPLE)
  # Hidden visibility leaves the templates of the C++ library visible.
  set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  target_link_options(openwork PRIVATE LINKER:--version-script=${exports})
  set_target_properties(openwork PROPERTIES LINK_DEPENDS ${exports})
endif()

set(config ${CMAKE_INSTALL_LIBDIR}/cmake/openwork)
install(TARGETS openwork EXPORT openwork LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_SOURCE_DIR}/include/openwork.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT openwork NAMESPACE openwork:: FILE openworkConfig.cmake DESTINATION ${config})
write_basic_package_version_file(openworkConfigVersion.cmake VERSION ${version} COMPATIBILITY SameMinorVersion)
configure_file(${PROJECT_SOURCE_DIR}/cmake/openwork.pc.in openwork.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/openworkConfigVersion.cmake DESTINATION ${config})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/openwork.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
